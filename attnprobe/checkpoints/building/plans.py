"""Plans of the plain ViT, with registers, distillation, pooling heads or gated MLPs."""

from typing import Any

from attnprobe.checkpoints.building import architecture, blocks, grids, relative, rotary, windows
from attnprobe.checkpoints.building.architecture import Plan, Shapes
from attnprobe.errors import FormatError

PUBLISHED_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32}
_GELU = (
    "exact GELU: the custom of open models; the file does not say, and OpenAI's own weights use "
    "quick GELU (--arch with a name of timm's, such as vit_base_patch32_clip_quickgelu_224)"
)

_GELU_OF_SIGLIP = (
    "exact GELU: the file does not say; timm's SigLIP models of some sizes use the tanh form "
    "(--arch with their name)"
)


def plan(shapes: Shapes) -> Plan:
    """Return how to build the module that an encoder's shapes ask for."""
    return _PLANNERS[shapes.layout.family](shapes)


def _vit(shapes: Shapes) -> Plan:
    _refuse_unclear(shapes)
    registers = shapes.shapes.get("reg_token", (1, 0))[1]
    class_token, distilled = "cls_token" in shapes, "dist_token" in shapes
    grid, embedded, told = grids.from_positions(shapes, class_token + distilled + registers)
    kwargs, assumed = blocks.plain(shapes)
    assumed = (*assumed, *told)
    size = architecture.pixels(grid, kwargs["patch_size"])
    kwargs |= {
        "img_size": size,
        "class_token": class_token,
        "reg_tokens": registers,
        "no_embed_class": not embedded,
        **_parts(shapes),
        **_pooling(shapes, class_token),
    }
    if distilled:
        return Plan("deit", {**kwargs, "fc_norm": None}, size, assumed)
    return Plan("vit", kwargs, size, (*assumed, *_unsaid(shapes, kwargs)))


def _parts(shapes: Shapes) -> dict[str, Any]:
    """Return what embedding and blocks are made of."""
    return {
        "qkv_bias": shapes.any(".attn.qkv.bias"),
        "qk_norm": shapes.any(".attn.q_norm.weight"),
        "proj_bias": shapes.any(".attn.proj.bias"),
        "scale_attn_norm": shapes.any(".attn.norm.weight"),
        "scale_mlp_norm": shapes.any(".mlp.norm.weight"),
        "init_values": 1e-5 if shapes.any(".ls1.gamma") else None,
        "pre_norm": "norm_pre.weight" in shapes,
        "embed_norm_layer": blocks.norm(shapes) if "patch_embed.norm.weight" in shapes else None,
        **blocks.mlp(shapes),
    }


def _pooling(shapes: Shapes, class_token: bool) -> dict[str, Any]:
    """Return what follows the last block."""
    pooled = "fc_norm.weight" in shapes
    by_map = "attn_pool.latent" in shapes
    by_token = class_token and not pooled
    return {
        "global_pool": "map" if by_map else "token" if by_token else "avg",
        "fc_norm": pooled,
        "final_norm": bool(shapes.fact("final_norm", True)),
    }


def _unsaid(shapes: Shapes, kwargs: dict[str, Any]) -> tuple[str, ...]:
    """Say which activation was taken where releases with the same names differ in it."""
    if kwargs["act_layer"] is not None:
        return ()
    if kwargs["pre_norm"]:
        return (f"pre-norm ViT as in CLIP: LayerNorm eps 1e-5 and {_GELU}",)
    return (_GELU_OF_SIGLIP,) if kwargs["global_pool"] == "map" else ()


def _refuse_unclear(shapes: Shapes) -> None:
    """Refuse names under which timm has models that compute different things.

    Raises:
        FormatError: The model has to be named.
    """
    plain = not shapes.any(".attn.qkv.bias") and not shapes.any(".ls1.gamma")
    if "cls_token" not in shapes and plain and "fc_norm.weight" in shapes:
        raise FormatError(
            "no class token, no biases of queries and no layer scales: norms may lie before "
            "attention and MLP or after them, which no shape tells",
            "name its model with --arch (vit_base_patch16_rpn_224)",
        )
    if "norm_pre.weight" in shapes and "attn_pool.latent" in shapes:
        raise FormatError(
            "a norm before the blocks and a pooling head, as in the Perception Encoder, whose "
            "rotary positions no shape tells",
            "name its model with --arch (vit_pe_*)",
        )


_PLANNERS = {
    "vit": _vit,
    "eva": rotary.plan,
    "beit": relative.beit,
    "relpos": relative.relpos,
    "swin": windows.plan,
    "swinv2": windows.plan,
}


def unusual_depth(plan: Plan) -> tuple[str, ...]:
    """Say when a depth is not the published one of its width.

    A file that lost its last blocks looks just like a shallower model, so it is said, not refused.
    """
    width, depth = plan.kwargs.get("embed_dim"), plan.kwargs.get("depth")
    plain = plan.family in ("vit", "deit", "beit", "eva")
    usual = PUBLISHED_DEPTHS.get(int(width or 0)) if plain else None
    if usual is None or depth == usual:
        return ()
    told = f"{depth} blocks: published models of width {width} have {usual}; a file that lost its "
    return (f"{told}last blocks would look the same",)
