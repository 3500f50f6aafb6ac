"""EfficientFormer V2 (Li et al. 2023): talking heads, at a stride of their own, and downsampling.

Heads are mixed before the softmax and after it. What is measured is the softmax between: its
rows are distributions, of heads as the first mixing made them.
"""

import math
from dataclasses import replace

from attnprobe.attention.strides import counted, stride_of
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _strided(at: At) -> TokenGrid:
    convolution = at.module.stride_conv
    return counted(at, _grid(at, convolution.conv.stride[0] if convolution else 1))


def _downsampled(at: At) -> TokenGrid:
    """Place queries at every second key of every second row; the stage is that of the queries."""
    queries, keys = _grid(at, 1), _grid(at, 0.5)
    middle = (keys.patch[0] / 2, keys.patch[1] / 2)
    return counted(at, replace(queries, keys=keys, origin=middle))


def _grid(at: At, step: float) -> TokenGrid:
    """Return the grid of a layer whose tokens are so many times as far apart as its stage's."""
    apart = stride_of(at) * float(step)
    rows, cols = (math.ceil(side / apart) for side in at.image)
    return TokenGrid(rows, cols, (apart, apart))


VARIANTS = (
    Variant("efficientformer_v2.Attention2d", place=_strided),
    Variant("efficientformer_v2.Attention2dDownsample", place=_downsampled),
)
