"""SAM (Kirillov et al. 2023): solid windows and a few global layers."""

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import Variant

VARIANTS = (Variant("vision_transformer_sam.Attention", place=windows),)
