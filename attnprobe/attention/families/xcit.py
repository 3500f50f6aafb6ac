"""XCiT (Ali et al. 2021): attention over channels, and of a class token at the end."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant(
        "xcit.XCA",
        left_out="attends from channels to channels, not from patches to patches",
    ),
)
