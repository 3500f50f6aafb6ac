"""Readers: from an attention module in the middle of its forward pass to AttentionInputs.

A reader says which modules it knows, which torch calls inside them it wants to see, and how
those calls become queries, keys, scale and bias. `READERS` is searched in order; a model's
attention modules that none of them knows are an error, never a guess.
"""

from attnprobe.attention.calls import CALLS
from attnprobe.attention.layers import Site, discover, left_out
from attnprobe.attention.reader import RawAttention, Reader
from attnprobe.attention.sdpa import SDPA
from attnprobe.attention.window import WINDOW

READERS: tuple[Reader, ...] = (WINDOW, SDPA, CALLS)

__all__ = [
    "CALLS",
    "READERS",
    "SDPA",
    "WINDOW",
    "RawAttention",
    "Reader",
    "Site",
    "discover",
    "left_out",
]
