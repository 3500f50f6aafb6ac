"""Swin V2 as Christoph Reich wrote it: windows in turn shifted and not."""

from dataclasses import replace

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _shifted(at: At) -> TokenGrid:
    grid = windows(at)
    return replace(grid, shift=tuple(at.parent.shift_size)) if grid.window else grid


VARIANTS = (Variant("swin_transformer_v2_cr.WindowMultiHeadAttention", place=_shifted),)
