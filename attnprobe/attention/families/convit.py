"""ConViT (d'Ascoli et al. 2021): gated positional self-attention."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant("convit.GPSA", refused="mixes two softmaxes, one of content and one of position"),
)
