"""PVT v2 (Wang et al. 2021): keys pooled by a convolution."""

from attnprobe.attention.placing import strided
from attnprobe.attention.variant import Variant

VARIANTS = (Variant("pvt_v2.Attention", place=strided),)
