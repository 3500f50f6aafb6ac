"""LeViT (Graham et al. 2021): queries that are every second token of every second row."""

from attnprobe.attention.placing import subsampled
from attnprobe.attention.variant import Variant

VARIANTS = (Variant("levit.AttentionDownsample", place=subsampled),)
