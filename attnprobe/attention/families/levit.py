"""LeViT (Graham et al. 2021): queries that are every second token of every second row."""

import math
from dataclasses import replace
from typing import Any

from attnprobe.attention.placing import by_stride, subsampled
from attnprobe.attention.strides import counted, owner
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid

_STEM = 16  # four convolutions of stride 2


def _hugging(at: At) -> TokenGrid:
    """Place tokens of transformers' LeViT, whose stages are as far apart as their subsamplings."""
    encoder = owner(at, "modeling_levit.LevitEncoder")
    strides, subsamples = [_STEM], getattr(at.module, "queries_subsample", None)
    for stage in encoder.stages:
        strides += [strides[-1] * x for x in _steps(stage)]
    keys = by_stride(at, at.keys, strides=strides, rounded=math.ceil)
    if subsamples is None:
        return counted(at, keys)
    apart = int(keys.patch[0]) * subsamples.stride
    queries = by_stride(at, at.queries, strides=[apart], rounded=math.ceil)
    middle = (keys.patch[0] / 2, keys.patch[1] / 2)
    return counted(at, replace(queries, keys=keys, origin=middle))


def _steps(stage: Any) -> list[int]:
    found = (getattr(layer, "queries_subsample", None) for layer in stage.layers)
    return [x.stride for x in found if x is not None]


VARIANTS = (
    Variant("levit.AttentionDownsample", place=subsampled),
    Variant("modeling_levit.LevitAttention", place=_hugging),
    Variant("modeling_levit.LevitAttentionSubsample", place=_hugging),
)
