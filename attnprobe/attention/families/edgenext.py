"""EdgeNeXt (Maaz et al. 2022): attention over channels only."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant(
        "edgenext.CrossCovarianceAttn",
        left_out="attends from channels to channels, not from patches to patches",
    ),
)
