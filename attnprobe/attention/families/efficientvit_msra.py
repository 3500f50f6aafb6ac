"""EfficientViT (Liu et al. 2023): cascaded groups in windows."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant(
        "efficientvit_msra.CascadedGroupAttention", refused="computes its heads one after another"
    ),
)
