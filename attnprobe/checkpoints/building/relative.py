"""Plans of encoders with tables of relative positions: BEiT's, and timm's vit_relpos models."""

from dataclasses import replace
from typing import Any

from attnprobe.checkpoints.building import architecture, blocks, grids
from attnprobe.checkpoints.building.architecture import Plan, Shapes
from attnprobe.errors import FormatError, PartialLoadError

_TABLE = "relative_position_bias_table"


def beit(shapes: Shapes) -> Plan:
    """Return how to build a BEiT, whose queries and values have biases and keys have none."""
    side = _side(shapes, prefix=3)
    kwargs, assumed = blocks.plain(shapes)
    size = architecture.pixels((side, side), kwargs["patch_size"])
    kwargs |= {
        "img_size": size,
        "qkv_bias": shapes.any(".attn.q_bias") or shapes.any(".attn.v_bias"),
        "init_values": 0.1 if shapes.any(".gamma_1") or shapes.any(".gamma_2") else None,
        "use_abs_pos_emb": "pos_embed" in shapes,
        "use_rel_pos_bias": shapes.any(f".attn.{_TABLE}"),
        "use_shared_rel_pos_bias": f"rel_pos_bias.{_TABLE}" in shapes,
        "global_pool": "avg" if "fc_norm.weight" in shapes else "token",
    }
    return Plan("beit", kwargs, size, assumed)


def relpos(shapes: Shapes) -> Plan:
    """Return how to build timm's ViT with relative positions, of a table or a small network.

    Raises:
        FormatError: Norms may lie before or after attention and MLP.
    """
    if not shapes.any(".ls1.gamma"):
        raise FormatError(
            "relative positions without layer scales: norms may lie before attention and MLP or "
            "after them, which no shape tells",
            "name its model with --arch (vit_relpos_*_rpn_*)",
        )
    places = {name: shape for name, shape in shapes.shapes.items() if "rel_pos." in name}
    # the small network has layers of the MLP's names
    others = replace(shapes, shapes={k: v for k, v in shapes.shapes.items() if k not in places})
    class_token = "cls_token" in shapes
    kind, grid, told = _relative(shapes, places, 3 * class_token)
    kwargs, assumed = blocks.plain(others)
    size = architecture.pixels(grid, kwargs["patch_size"])
    pooled = "fc_norm.weight" in shapes
    kwargs |= {
        "img_size": size,
        "class_token": class_token,
        "qkv_bias": shapes.any(".attn.qkv.bias"),
        "qk_norm": shapes.any(".attn.q_norm.weight"),
        "init_values": 1e-5,
        "fc_norm": pooled,
        "global_pool": "token" if class_token and not pooled else "avg",
        "shared_rel_pos": any(name.startswith("shared_rel_pos.") for name in places),
        **kind,
    }
    return Plan("relpos", kwargs, size, (*assumed, *told))


def _relative(
    shapes: Shapes, places: dict[str, tuple[int, ...]], prefix: int
) -> tuple[dict[str, Any], tuple[int, int], tuple[str, ...]]:
    """Return the kind of relative positions, the grid, and what was assumed for them."""
    if any(name.endswith(_TABLE) for name in places):
        side = _side(shapes, prefix)
        return {"rel_pos_type": "bias"}, (side, side), ()
    hidden = next(shape[0] for name, shape in places.items() if name.endswith("fc1.weight"))
    bounded = not any(name.endswith("fc2.bias") for name in places)  # Swin V2's kind
    grid, told = grids.by_custom(shapes, 224)
    return {"rel_pos_type": "mlp-swin" if bounded else "mlp", "rel_pos_dim": hidden}, grid, told


def _side(shapes: Shapes, prefix: int) -> int:
    """Return the side of the grid; `prefix` counts the table's rows for the class token."""
    for name, shape in shapes.shapes.items():
        count = None
        if name.endswith(_TABLE):
            span = architecture.square(shape[0] - prefix)
            count = (span + 1) // 2 if span is not None and span % 2 else None
        elif name == "pos_embed":
            count = architecture.square(shape[-2] - 1)
        if count is not None:
            return count
    raise PartialLoadError(
        "neither pos_embed nor a table of relative positions gives a square patch grid",
        "the file is incomplete, or its images are not square: save it with timm's names",
    )
