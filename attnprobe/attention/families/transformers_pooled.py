"""PVT, PVTv2, SegFormer, GLPN and CvT of transformers: keys pooled by a convolution."""

from dataclasses import replace
from itertools import accumulate
from operator import mul
from typing import Any

from torch import nn

from attnprobe.attention.placing import around, by_stride, pooled, unknown
from attnprobe.attention.strides import convolved, counted, owner, pixels, stage_in
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid

_REDUCTIONS = ("sequence_reduction", "spatial_reduction", "sr")


def _pooled(at: At) -> TokenGrid:
    parts: list[Any] = [part for _, part in around(at)]
    config = next((part.config for part in parts if hasattr(part, "config")), None)
    strides = getattr(config, "strides", None)
    if strides is None or getattr(at.module, "linear_attention", False):
        raise unknown(at, f"{at.keys} keys of {at.queries} queries")
    prefixes = (0, 1) if at.queries == at.keys else (0,)  # a class token joins the last stage
    grid = by_stride(at, at.queries, strides=accumulate(strides, mul), prefixes=prefixes)
    found = (getattr(at.module, name, None) for name in _REDUCTIONS)
    reduction = next((x for x in found if x is not None), nn.Identity())
    convolutions = [part for part in reduction.modules() if isinstance(part, nn.Conv2d)]
    return pooled(at, grid, convolutions[0] if len(convolutions) == 1 else None)


def _convolved(at: At) -> TokenGrid:
    """Follow the convolutions of CvT: those between its stages, then those of queries and keys."""
    encoder = owner(at, "modeling_cvt.CvtEncoder")
    grid = pixels(at)
    for stage in encoder.stages[: stage_in(encoder.stages, at.module) + 1]:
        grid = convolved(grid, stage.embedding.convolution_embeddings.projection)
    projections = (at.module.convolution_projection_query, at.module.convolution_projection_key)
    queries, keys = (
        convolved(grid, x.convolution_projection.convolution)
        if hasattr(x, "convolution_projection")
        else grid
        for x in projections
    )
    names = ("cls",) if at.module.with_cls_token else ()
    queries = replace(queries, prefix=len(names), names=names)
    return counted(at, replace(queries, keys=keys))


VARIANTS = (
    Variant("modeling_cvt.CvtSelfAttention", place=_convolved),
    Variant("modeling_glpn.GLPNEfficientSelfAttention", place=_pooled),
    Variant("modeling_pvt.PvtEfficientSelfAttention", place=_pooled),
    Variant("modeling_pvt_v2.PvtV2SelfAttention", place=_pooled),
    Variant("modeling_segformer.SegformerAttention", place=_pooled),
)
