"""TinyViT (Wu et al. 2022): solid windows."""

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import Variant

VARIANTS = (Variant("tiny_vit.Attention", place=windows),)
