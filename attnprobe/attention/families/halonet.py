"""HaloNet (Vaswani et al. 2021): windows whose keys overlap."""

from attnprobe.attention.variant import Variant

VARIANTS = (Variant("halo_attn.HaloAttn", refused="has keys that overlap from window to window"),)
