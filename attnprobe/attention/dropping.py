"""Attention over the patches that were kept of an image, brought back to the whole grid."""

from typing import NamedTuple

import torch
from torch import Tensor

from attnprobe.attention.reader import RawAttention
from attnprobe.errors import CaptureError


class Kept(NamedTuple):
    """Which patches the images of a pass kept.

    Attributes:
        places: Their places in the grid in the order of the tokens, int64 [images, kept].
        patches: Patches of the grid.
    """

    places: Tensor
    patches: int

    @property
    def mask(self) -> Tensor:
        """Which patches were kept, bool [images, patches]."""
        found = torch.zeros(
            len(self.places), self.patches, dtype=torch.bool, device=self.places.device
        )
        return found.scatter_(1, self.places, value=True)


def restored(raw: RawAttention, kept: Kept, name: str) -> RawAttention:
    """Put queries and keys at the places of their patches, prefix tokens first; zeros elsewhere.

    Args:
        raw: Attention over prefix tokens and kept patches.
        kept: The patches.
        name: The layer.

    Raises:
        CaptureError: The tokens are others, or a bias between them came along.
    """
    images, count = kept.places.shape
    tokens = raw.k.shape[2]
    if raw.q.shape[:1] + raw.q.shape[2:3] != (images, tokens) or tokens < count:
        raise CaptureError(
            f"{name} attends over {tokens} keys of {raw.q.shape[0]} windows where {images} images "
            f"kept {count} patches each",
            "measure this model on whole images: leave the mask ratio out",
        )
    if raw.bias is not None:
        raise CaptureError(
            f"{name} has a bias between tokens, which the patches that were kept do not follow",
            "replace masked patches instead: --mask-how replace",
        )
    prefix = tokens - count
    return raw._replace(**{n: _placed(getattr(raw, n), kept, prefix) for n in ("q", "k")})


def _placed(x: Tensor, kept: Kept, prefix: int) -> Tensor:
    """Return [images, heads, prefix + patches, dim]."""
    images, heads, _, dim = x.shape
    out = x.new_zeros(images, heads, prefix + kept.patches, dim)
    out[:, :, :prefix] = x[:, :, :prefix]
    index = prefix + kept.places[:, None, :, None].expand(-1, heads, -1, dim)
    return out.scatter_(2, index, x[:, :, prefix:])
