"""LeViT (Graham et al. 2021): queries that are every second token of every second row."""

from dataclasses import replace

from attnprobe.attention.placing import by_count
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _subsampled(at: At) -> TokenGrid:
    """Place queries that are every second token of every second row of the keys."""
    keys, queries = by_count(at, at.keys), by_count(at, at.queries)
    middle = (keys.patch[0] / 2, keys.patch[1] / 2)
    return replace(queries, keys=keys, origin=middle)


VARIANTS = (Variant("levit.AttentionDownsample", place=_subsampled),)
