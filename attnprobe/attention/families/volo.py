"""VOLO (Yuan et al. 2021): outlook attention, then global attention."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant(
        "volo.OutlookAttention",
        left_out="reads its weights from one token, without queries and keys",
    ),
)
