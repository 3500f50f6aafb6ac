"""Swin and Swin V2 of the transformers library, with those of Donut and MaskFormer."""

import math
from typing import Any

from attnprobe.attention.placing import around, unknown
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _windows(at: At) -> TokenGrid:
    """Place windows by the layer around them, whose sizes follow the last image."""
    parts: list[Any] = [part for _, part in around(at)]
    layer = next(part for part in parts if hasattr(part, "shift_size"))
    config = next(part.config for part in parts if hasattr(part, "config"))
    stage = next((i for part in parts for i in _stage(part, parts)), None)
    patch = config.patch_size
    if stage is None or not isinstance(patch, int):
        raise unknown(at, f"{at.keys} tokens of an unknown stage")
    stride, side, shift = patch * 2**stage, int(layer.window_size), int(layer.shift_size)
    rows, cols = (math.ceil(size / stride) for size in at.image)
    grid = TokenGrid(
        rows,
        cols,
        (float(stride), float(stride)),
        window=(side, side),
        shift=(shift, shift),
        padding=(-rows % side, -cols % side),  # before the shift
    )
    if math.prod(grid.windows) != at.windows or at.keys != side**2:
        raise unknown(at, f"windows of {side} x {side} that do not tile {rows} x {cols} tokens")
    return grid


def _stage(part: Any, parts: list[Any]) -> list[int]:
    """Return which of an encoder's stages is around a layer, if the part is an encoder."""
    stages = getattr(part, "layers", None)
    return [i for i, stage in enumerate(stages or ()) if any(stage is x for x in parts)]


VARIANTS = (
    Variant("modeling_donut_swin.DonutSwinSelfAttention", place=_windows),
    Variant("modeling_maskformer_swin.MaskFormerSwinSelfAttention", place=_windows),
    Variant("modeling_swin.SwinAttention", place=_windows),
    Variant("modeling_swinv2.Swinv2SelfAttention", place=_windows),
)
