"""Swin V2 as Christoph Reich wrote it: windows in turn shifted and not."""

from dataclasses import replace

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _shifted(at: At) -> TokenGrid:
    grid = windows(at, size=tuple(at.parent.window_size))
    return replace(grid, shift=tuple(at.parent.shift_size), late=True) if grid.window else grid


VARIANTS = (Variant("swin_transformer_v2_cr.WindowMultiHeadAttention", place=_shifted),)
