"""Plans for timm's Eva, which holds EVA, EVA-02, DINOv3 and other rotary transformers.

Rotary geometry is stated by the buffers of official files and is in no parameter: buffers say
the head width and the grid that was trained on, or the release's custom does.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnprobe.checkpoints.building import architecture, blocks, grids
from attnprobe.checkpoints.building.architecture import Plan, Shapes
from attnprobe.errors import FormatError

# blocks whose norms come after attention and MLP look like any others: (width, depth)
_POST_NORM = {(1792, 64): "EVA-02-CLIP-E"}
_CLOSE = 0.01  # half-precision files round cosines to this


def plan(shapes: Shapes) -> Plan:
    """Return how to build an Eva from an encoder's shapes, buffers and customs."""
    class_token = "cls_token" in shapes
    registers = shapes.shapes.get("reg_token", (1, 0))[1]
    kwargs, assumed = blocks.plain(shapes)
    rotary = dict(shapes.fact("rotary") or {})
    if "pos_embed" in shapes:
        grid, embedded, told = grids.from_positions(shapes, class_token + registers)
    else:
        embedded = True
        grid, told = grids.by_custom(shapes, int(shapes.fact("input_side", 224)))
    size = architecture.pixels(grid, kwargs["patch_size"])
    pooled = "fc_norm.weight" in shapes
    kwargs |= {
        "img_size": size,
        "class_token": class_token,
        "num_reg_tokens": registers,
        "no_embed_class": not embedded,
        "use_abs_pos_emb": "pos_embed" in shapes,
        "use_fc_norm": pooled,
        "use_post_transformer_norm": not pooled or "norm.weight" in shapes,
        "global_pool": "token" if class_token and not pooled else "avg",
        **_parts(shapes),
    }
    finish, which = None, ()
    if rotary:
        kwargs |= {"use_rot_pos_emb": True, **rotary}
        stated, which, finish = _geometry(shapes, grid, rotary)
        kwargs |= stated
    post = _POST_NORM.get((kwargs["embed_dim"], kwargs["depth"]))
    if post and not rotary:
        kwargs["use_post_norm"] = True
        which = (*which, f"norms after attention and MLP: as in the published {post}")
    return Plan("eva", kwargs, size, (*assumed, *told, *which), finish)


def _parts(shapes: Shapes) -> dict[str, Any]:
    """Return what a block is made of."""
    fused, scaled = shapes.any(".attn.qkv.weight"), shapes.any(".mlp.norm.weight")
    whole = shapes.any(".attn.qkv.bias") or shapes.any(".attn.k_proj.bias")
    some = shapes.any(".attn.q_bias") or shapes.any(".attn.q_proj.bias")
    split = blocks.split(shapes)
    return {
        "qkv_fused": fused,
        "qkv_bias": whole or some,
        "attn_type": "rope" if whole else "eva",  # that one has a bias of keys
        "swiglu_mlp": split or blocks.packed(shapes),
        "swiglu_align_to": int(split and not scaled),
        "scale_mlp": scaled,
        "scale_attn_inner": shapes.any(".attn.norm.weight"),
        "init_values": 1e-5 if shapes.any(".gamma_1") else None,
    }


def _geometry(
    shapes: Shapes, grid: tuple[int, int], rotary: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...], Any]:
    """Return what buffers state, what was assumed without them, and the last step of building."""
    buffers = shapes.weights.tensors
    periods = buffers.get("rope_embed.periods")
    if periods is not None:
        return {}, (), partial(_set_periods, periods=periods.float())
    sines, cosines = (_buffer(buffers, f"rope.freqs_{kind}") for kind in ("sin", "cos"))
    if sines is not None and cosines is not None:
        if sines.shape[0] != grid[0] * grid[1]:
            raise FormatError(
                f"rotary table of {sines.shape[0]} places for {grid[0]} x {grid[1]} patches",
                "the file mixes two models or was edited: get it again",
            )
        side = trained_side(sines, cosines, grid[1])
        table = torch.cat([sines, cosines], -1).float()
        return {"ref_feat_shape": (side, side)}, (), partial(_check_table, table=table)
    told = ", ".join(f"{key} {value}" for key, value in rotary.items())
    return (
        {},
        (f"rotary positions ({told}): the custom of {shapes.layout.name}, not in the file",),
        None,
    )


def _buffer(buffers: dict[str, Tensor], name: str) -> Tensor | None:
    """Return a buffer that each block may have a copy of."""
    return next((tensor for key, tensor in buffers.items() if key.endswith(name)), None)


def trained_side(sines: Tensor, cosines: Tensor, cols: int) -> int:
    """Return the side of the grid whose places a rotary table was trained on.

    The first frequency is 1, so the angle of the second row is one step: trained side / side.

    Args:
        sines: Sines, [places, head width].
        cosines: Cosines, [places, head width].
        cols: Columns of the grid.
    """
    if sines.shape[0] <= cols:
        return cols
    step = math.atan2(float(sines[cols, 0]), float(cosines[cols, 0]))
    return max(1, round(step * cols))


def _set_periods(module: Any, periods: Tensor) -> None:
    """Let DINOv3's own periods, which its files round, turn queries and keys."""
    rope = module.rope
    if rope.periods.shape != periods.shape or not torch.allclose(rope.periods, periods, rtol=0.01):
        raise FormatError(
            f"rope_embed.periods are not those of base {rope.temperature:g}: "
            f"{[round(float(value), 2) for value in periods[:4]]}, ...",
            "this is a variant that is not read; report its release",
        )
    rope.periods.copy_(periods)
    rope._cache_embed(rope.feat_shape)


def _check_table(module: Any, table: Tensor) -> None:
    """Refuse a table that is not the one that timm computes."""
    computed: Tensor = module.rope.get_embed()
    if computed.shape != table.shape or not torch.allclose(computed, table, atol=_CLOSE):
        raise FormatError(
            "the rotary table in the file is not that of EVA-02",
            "this is a variant that is not read; report its release",
        )
