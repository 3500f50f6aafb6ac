"""The records that carry tensors between capture, kernels and metrics."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attnprobe.errors import GeometryError
from attnprobe.types import LayerInfo, TokenGrid


def every(step: int, patches: int) -> slice:
    """Return which of `patches` queries count: every step-th in reading order, one at least.

    >>> list(range(9)[every(4, 9)]), list(range(3)[every(1, 3)]), list(range(2)[every(9, 2)])
    ([2, 6], [0, 1, 2], [1])
    """
    return slice(min(step, patches) // 2, patches, step)


def strip(queries: int, keys: int) -> TokenGrid:
    """Return a grid for tokens that have no place, on which every key counts."""
    line = TokenGrid(1, keys, (1, 1))
    return line if queries == keys else TokenGrid(1, queries, (1, 1), keys=line)


@dataclass(frozen=True)
class AttentionInputs:
    """What one attention layer computes its probabilities from.

    Windowed layers put images x windows in the batch axis, image-major, so the bias may be
    given once a window instead of once an image.

    Attributes:
        layer: The layer and its geometry.
        images: Images in the batch.
        q: Queries, [batch, heads, queries, dim].
        k: Keys, [batch, heads, keys, dim], or fewer heads that groups of query heads share.
        scale: Factor on q . k before the bias.
        bias: Additive logits [1 | windows | batch, 1 | heads, 1 | queries, keys], or None;
            -inf marks pairs that carry no weight.
        step: Only every step-th patch query counts (see `every`).
        kept: Which patches each image kept, bool [images, patches], where it was shown a part of
            them; q and k of the others are anything finite. None for all.
    """

    layer: LayerInfo
    images: int
    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None
    step: int = 1
    kept: Tensor | None = None

    @property
    def windows(self) -> int:
        """Windows of one image; 1 for global attention."""
        return self.q.shape[0] // self.images

    @property
    def keys(self) -> Tensor:
        """Keys with a head for every head of the queries."""
        groups = self.q.shape[1] // self.k.shape[1]
        return self.k if groups == 1 else self.k.repeat_interleave(groups, dim=1)

    @property
    def grid(self) -> TokenGrid:
        """The layer's geometry, or without one a strip on which every key counts."""
        if self.layer.grid is not None:
            return self.layer.grid
        return strip(self.q.shape[2], self.k.shape[2])

    @property
    def present(self) -> Tensor | None:
        """Which patches are there, bool [1 | images, 1 | windows, patches]; None for all.

        The others are padding, or were dropped. Whatever the convention for prefix tokens, an
        absent key gets no weight (rows are renormalised without it, as they are without prefix
        keys) and an absent query is in no mean.

        Raises:
            GeometryError: The grid says that patches were dropped, and nothing says which.
        """
        if self.grid.whole and self.kept is None:
            return None
        if self.grid.padding != (0, 0):
            found = torch.from_numpy(self.grid.present()).to(self.q.device).unsqueeze(0)
        elif self.kept is not None:
            found = self.kept.unsqueeze(1)
        else:
            raise GeometryError(
                f"{self.layer.name} has absent patches, and nothing says which",
                "give `kept` beside the queries and keys",
            )
        return found

    def counts(self, present: Tensor) -> Tensor:
        """Return how many queries count and are there, float64 [1 | images].

        Raises:
            GeometryError: None of an image.
        """
        chosen = present[..., every(self.step, self.grid.queries)]
        counts = chosen.double().sum(-1).expand(-1, self.windows).sum(-1)
        if not bool(counts.all()):
            raise GeometryError(
                f"none of every {self.step}th query of {self.layer.name} is there in an image",
                "measure more queries: a smaller --query-step",
            )
        return counts


@dataclass(frozen=True)
class Features:
    """The output of one block.

    Attributes:
        layer: The attention layer of that block.
        images: Images in the batch.
        x: Tokens, [images, tokens, channels], prefix tokens first.
    """

    layer: LayerInfo
    images: int
    x: Tensor


class AttentionStats(NamedTuple):
    """Per-image means over patch queries of one layer, fp32; None where not asked for.

    Attributes:
        distance: Attention distance in input pixels, [images, heads].
        entropy: Entropy in nats, [images, heads].
        prefix_mass: Attention on each prefix token, [images, heads, prefix].
        kl: KL divergence of head a from head b in nats, [images, heads, heads].
    """

    distance: Tensor | None = None
    entropy: Tensor | None = None
    prefix_mass: Tensor | None = None
    kl: Tensor | None = None
