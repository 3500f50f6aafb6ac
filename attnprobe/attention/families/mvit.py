"""MViT v2 (Li et al. 2022): queries and keys that strided convolutions make of the tokens."""

from dataclasses import replace
from typing import Any

from attnprobe.attention.strides import convolved, counted, owner, pixels
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _pooled(at: At) -> TokenGrid:
    """Follow the poolings of all queries before, then place what the layer's own make."""
    model = owner(at, "mvitv2.MultiScaleVit")
    tokens = convolved(pixels(at), model.patch_embed.proj)
    for block in (block for stage in model.stages for block in stage.blocks):
        if block.attn is at.module:
            break
        tokens = _through(tokens, block.attn.pool_q)
    queries, keys = (_through(tokens, pool) for pool in (at.module.pool_q, at.module.pool_k))
    prefix = int(at.module.has_cls_token)
    names = ("cls",) * prefix
    keys = None if keys == queries else keys
    return counted(at, replace(queries, prefix=prefix, names=names, keys=keys))


def _through(grid: TokenGrid, pool: Any) -> TokenGrid:
    return grid if pool is None else convolved(grid, pool)


VARIANTS = (Variant("mvitv2.MultiScaleAttention", place=_pooled),)
