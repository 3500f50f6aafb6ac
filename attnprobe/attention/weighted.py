"""Attention of which only the logits or the probabilities are at hand."""

from torch import Tensor

from attnprobe.attention.reader import RawAttention


def from_logits(logits: Tensor) -> RawAttention:
    """Keep logits as the bias of empty queries and keys, so that kernels know no difference.

    Args:
        logits: [images x windows, heads, queries, keys].
    """
    batch, heads, queries, keys = logits.shape
    empty = logits.new_zeros(1, 1, 1, 1)
    return RawAttention(
        empty.expand(batch, heads, queries, 1), empty.expand(batch, heads, keys, 1), 0.0, logits
    )


def from_weights(weights: Tensor) -> RawAttention:
    """Keep probabilities, [images x windows, heads, queries, keys], whose rows sum to one."""
    return from_logits(weights.log())
