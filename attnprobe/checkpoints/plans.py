"""Plans of the plain families: ViT (with registers or distillation) and BEiT."""

from functools import partial
from typing import Any

from torch import nn

from attnprobe.checkpoints import architecture, windows
from attnprobe.checkpoints.architecture import Plan, Shapes
from attnprobe.errors import FormatError, PartialLoadError

_CLIP = (
    "pre-norm ViT as in CLIP: LayerNorm eps 1e-5 and exact GELU; OpenAI's own weights use quick "
    "GELU, so load those as timm:NAME"
)

PUBLISHED_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32}


def plan(shapes: Shapes) -> Plan:
    """Return how to build the module that an encoder's shapes ask for."""
    return _PLANNERS[shapes.layout.family](shapes)


def _plain(shapes: Shapes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments that every plain transformer shares."""
    width, channels, patch = architecture.patch_embedding(shapes)
    layers = architecture.depth(shapes.shapes)
    heads, assumed = architecture.choose_heads(shapes, width, layers)
    hidden = shapes.first(".mlp.fc1.weight")[0]
    return {
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": layers,
        "num_heads": heads,
        "mlp_ratio": architecture.ratio(hidden, width),
        "num_classes": architecture.classes(shapes, "head", width),
        "norm_layer": partial(nn.LayerNorm, eps=float(shapes.fact("norm_eps", 1e-6))),
    }, assumed


def _vit(shapes: Shapes) -> Plan:
    registers = shapes.shapes.get("reg_token", (1, 0))[1]
    class_token, distilled = "cls_token" in shapes, "dist_token" in shapes
    prefix = class_token + distilled + registers
    grid, embedded = _vit_grid(shapes, prefix)
    kwargs, assumed = _plain(shapes)
    size = architecture.pixels(grid, kwargs["patch_size"])
    pooled = "fc_norm.weight" in shapes
    kwargs |= {
        "img_size": size,
        "class_token": class_token,
        "reg_tokens": registers,
        "no_embed_class": not embedded,
        "qkv_bias": shapes.any(".attn.qkv.bias"),
        "qk_norm": shapes.any(".attn.q_norm.weight"),
        "init_values": 1e-5 if shapes.any(".ls1.gamma") else None,
        "pre_norm": "norm_pre.weight" in shapes,
        "global_pool": "token" if class_token and not pooled else "avg",
        "fc_norm": pooled,
        **_gated(shapes),
    }
    if kwargs["pre_norm"]:
        kwargs["norm_layer"] = partial(nn.LayerNorm, eps=1e-5)
        assumed = (*assumed, _CLIP)
    if distilled:
        return Plan("deit", {**kwargs, "fc_norm": None}, size, assumed)
    return Plan("vit", kwargs, size, assumed)


def _gated(shapes: Shapes) -> dict[str, Any]:
    """SwiGLU with its two input matrices packed into one, as DINOv2's giant has it."""
    from timm.layers.mlp import SwiGLUPacked

    if shapes.first(".mlp.fc1.weight")[0] != 2 * shapes.first(".mlp.fc2.weight")[1]:
        return {}
    return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}


def _vit_grid(shapes: Shapes, prefix: int) -> tuple[tuple[int, int], bool]:
    """Return the patch grid and whether prefix tokens have positions of their own."""
    _, _, patch = architecture.patch_embedding(shapes)
    if "pos_embed" not in shapes:
        raise PartialLoadError(
            "pos_embed is missing and there is no table of relative positions",
            "the file is incomplete, or its positions are rotary (EVA-02, DINOv3) and it has to "
            "be loaded as timm:NAME",
        )
    tokens = shapes.shapes["pos_embed"][-2]
    patches = {True: tokens - prefix, False: tokens}
    stated = architecture.stated_size(shapes)
    for embedded, count in patches.items():
        side = architecture.square(count)
        if stated and (stated[0] // patch[0]) * (stated[1] // patch[1]) == count:
            return (stated[0] // patch[0], stated[1] // patch[1]), embedded
        if side is not None:
            return (side, side), embedded
    raise PartialLoadError(
        f"pos_embed has {tokens} positions: with {prefix} prefix tokens neither {tokens - prefix} "
        f"nor {tokens} patches make a square grid",
        "a prefix token (cls_token, dist_token, registers) may be missing from the file",
    )


def _beit(shapes: Shapes) -> Plan:
    if shapes.first(".mlp.fc1.weight")[0] != shapes.first(".mlp.fc2.weight")[1]:
        raise FormatError(
            "gated MLP beside q_bias and v_bias: EVA-02, whose rotary positions no shape tells",
            "load it as timm:NAME",
        )
    side = _beit_side(shapes)
    kwargs, assumed = _plain(shapes)
    size = architecture.pixels((side, side), kwargs["patch_size"])
    kwargs |= {
        "img_size": size,
        "qkv_bias": shapes.any(".attn.q_bias") or shapes.any(".attn.v_bias"),
        "init_values": 0.1 if shapes.any(".gamma_1") or shapes.any(".gamma_2") else None,
        "use_abs_pos_emb": "pos_embed" in shapes,
        "use_rel_pos_bias": shapes.any(".attn.relative_position_bias_table"),
        "use_shared_rel_pos_bias": "rel_pos_bias.relative_position_bias_table" in shapes,
        "global_pool": "avg" if "fc_norm.weight" in shapes else "token",
    }
    return Plan("beit", kwargs, size, assumed)


def _beit_side(shapes: Shapes) -> int:
    for name, shape in shapes.shapes.items():
        count = None
        if name.endswith("relative_position_bias_table"):
            span = architecture.square(shape[0] - 3)
            count = (span + 1) // 2 if span is not None and span % 2 else None
        elif name == "pos_embed":
            count = architecture.square(shape[-2] - 1)
        if count is not None:
            return count
    raise PartialLoadError(
        "neither pos_embed nor a table of relative positions gives a square patch grid",
        "the file is incomplete, or its images are not square: save it with timm's names",
    )


_PLANNERS = {"vit": _vit, "beit": _beit, "swin": windows.plan, "swinv2": windows.plan}


def unusual_depth(plan: Plan) -> tuple[str, ...]:
    """Say when a depth is not the published one of its width.

    A file that lost its last blocks looks just like a shallower model, so it is said, not refused.
    """
    width, depth = plan.kwargs.get("embed_dim"), plan.kwargs.get("depth")
    plain = plan.family in ("vit", "deit", "beit")
    usual = PUBLISHED_DEPTHS.get(int(width or 0)) if plain else None
    if usual is None or depth == usual:
        return ()
    told = f"{depth} blocks: published models of width {width} have {usual}; a file that lost its "
    return (f"{told}last blocks would look the same",)
