"""Readers: from an attention module in the middle of its forward pass to AttentionInputs.

A reader says which modules it knows, which torch calls inside them it wants to see, and how
those calls become queries, keys, scale and bias. `READERS` is searched in order; a model's
attention modules that none of them knows are an error, never a guess.
"""

from attnprobe.attention.layers import Site, discover
from attnprobe.attention.reader import RawAttention, Reader
from attnprobe.attention.sdpa import SDPA
from attnprobe.attention.window import WINDOW

READERS: tuple[Reader, ...] = (WINDOW, SDPA)

__all__ = ["READERS", "SDPA", "WINDOW", "RawAttention", "Reader", "Site", "discover"]
