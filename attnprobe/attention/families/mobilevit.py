"""MobileViT (Mehta and Rastegari 2022): pixels at the same place of every patch attend."""

import math

from torch import nn

from attnprobe.attention.strides import counted, owner, stage_in
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _same_pixels(at: At) -> TokenGrid:
    """Place windows spread out over a map, which the block stretches to whole patches."""
    sides = owner(at, "mobilevit.MobileVitBlock").patch_size
    return _spread(at, (int(sides[0]), int(sides[1])), _stride(at))


def _hugging(at: At) -> TokenGrid:
    """Place those of transformers; only convolutions on the way to the block have strides."""
    block = owner(at, "modeling_mobilevit.MobileViTLayer")
    model = owner(at, "modeling_mobilevit.MobileViTModel")
    layers = list(model.encoder.layer)
    before = [model.conv_stem, *layers[: layers.index(block) + 1]]
    convolutions = (x for part in before for x in part.modules() if isinstance(x, nn.Conv2d))
    stride = math.prod(int(x.stride[0]) for x in convolutions)
    return _spread(at, (block.patch_height, block.patch_width), stride)


def _spread(at: At, patch: tuple[int, int], stride: int) -> TokenGrid:
    rows, cols = (math.ceil(side / stride) for side in at.image)
    window = (math.ceil(rows / patch[0]), math.ceil(cols / patch[1]))
    whole = (window[0] * patch[0], window[1] * patch[1])
    cell = (stride * rows / whole[0], stride * cols / whole[1])
    return counted(at, TokenGrid(*whole, cell, window=window, dilation=patch))


def _stride(at: At) -> int:
    """Return the stride of the stage: the model states that of the last one before each change."""
    model = owner(at, "byobnet.ByobNet")
    stage = stage_in(model.stages, at.module) + 1  # 0 is the stem
    return next(x["reduction"] for x in model.feature_info if x["stage"] >= stage)


VARIANTS = (
    Variant("mobilevit.MobileVitBlock", place=_same_pixels),
    Variant("modeling_mobilevit.MobileViTSelfAttention", place=_hugging),
)
