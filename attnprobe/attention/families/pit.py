"""PiT (Heo et al. 2021): global attention, with a convolution that pools between stages."""

from dataclasses import replace

from attnprobe.attention.strides import convolved, counted, owner, pixels, stage_in
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _pooled(at: At) -> TokenGrid:
    model = owner(at, "pit.PoolingVisionTransformer")
    grid = convolved(pixels(at), model.patch_embed.conv)
    for stage in model.transformers[: stage_in(model.transformers, at.module) + 1]:
        grid = convolved(grid, stage.pool.conv) if stage.pool else grid
    names = ("cls", "dist")[: model.num_tokens]
    return counted(at, replace(grid, prefix=model.num_tokens, names=names))


VARIANTS = (Variant("pit.Transformer", place=_pooled),)
