"""Differential attention (Ye et al. 2024): one softmax less a part of another."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant(
        "diff_attention.DiffAttention",
        refused="subtracts one softmax from another, which leaves no probabilities",
    ),
)
