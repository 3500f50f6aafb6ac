"""TNT (Han et al. 2021): attention among the parts of each patch, then among patches."""

from typing import Any

from torch import Tensor, nn

from attnprobe.attention.strides import counted, owner
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _nested(at: At) -> TokenGrid:
    embed = owner(at, "tnt.TNT").pixel_embed
    height, width = embed.patch_size
    rows, cols = at.image[0] // height, at.image[1] // width
    if at.module is at.parent.attn_out:
        patch = (float(height), float(width))
        return counted(at, TokenGrid(rows, cols, patch, prefix=1, names=("cls",)))
    parts = tuple(embed.new_patch_size)
    step = (float(embed.proj.stride[0]), float(embed.proj.stride[1]))
    return counted(at, TokenGrid(rows * parts[0], cols * parts[1], step, window=parts))


def _own(block: Any, module: nn.Module, output: tuple[Tensor, Tensor]) -> Tensor:
    """Return the parts of patches, or the patches with their class token."""
    return output[1] if module is block.attn_out else output[0]


VARIANTS = (Variant("tnt.Attention", place=_nested, output=_own),)
