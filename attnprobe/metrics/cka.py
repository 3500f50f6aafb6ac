"""Linear CKA between block outputs, from unbiased HSIC over mini-batches.

    CKA(a, b) = sum HSIC1(K_a, K_b) / sqrt(sum HSIC1(K_a, K_a) * sum HSIC1(K_b, K_b))

(Nguyen et al. 2021, eq. 3; HSIC1: see `attnprobe.hsic`). The mini-batch is a fixed number of
images, whatever batch the forward pass runs at, so the estimate does not depend on it. The Gram
matrices are kept beside the values: they are all that CKA with another model needs.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import AttnprobeError
from attnprobe.hsic import pseudo_values
from attnprobe.metrics import Metric
from attnprobe.statistics import CKA
from attnprobe.tensors import Features
from attnprobe.types import MetricOptions

SMALLEST = 5  # images in a mini-batch: HSIC1 needs 4, leaving one out needs one more


def grams(features: Tensor) -> Tensor:
    """Return Gram matrices with zero diagonal, float64 [layers, n, n].

    Args:
        features: Features of n images, [layers, n, channels]; centring is not needed, as
            HSIC1 is invariant to it, but keeps the digits.
    """
    x = features.double()
    x = x - x.mean(1, keepdim=True)
    gram = x @ x.transpose(1, 2)
    gram.diagonal(dim1=1, dim2=2).zero_()
    return gram


def biased_hsic(gram: Tensor) -> Tensor:
    """Return biased HSIC0 = tr(KHLH) / (n - 1)^2 of full Gram matrices, [layers, layers]."""
    n = gram.shape[1]
    centred = gram - gram.mean(1, keepdim=True)
    centred = centred - centred.mean(2, keepdim=True)
    flat = centred.flatten(1)
    return flat @ flat.T / (n - 1) ** 2


def pool(features: Features, tokens: str) -> Tensor:
    """Return one vector an image: mean of patches, the CLS token, or all tokens flattened.

    Raises:
        AttnprobeError: The layer has no CLS token, or the mode is unknown.
    """
    grid = features.layer.grid
    prefix = grid.prefix if grid else 0
    names = grid.prefix_names if grid else ()
    if tokens == "mean":
        return features.x[:, prefix:].float().mean(1)
    if tokens == "flat":
        return features.x.float().flatten(1)
    if tokens == "cls" and names[:1] == ("cls",):
        return features.x[:, 0].float()
    raise AttnprobeError(
        f"CKA of {tokens!r} tokens is not defined for {features.layer.name}, whose "
        f"prefix tokens are: {', '.join(names) or 'none'}",
        "choose mean, flat, or cls with a model that has a CLS token",
    )


class CkaAccumulator:
    """Gathers pooled features into mini-batches and turns them into HSIC samples."""

    def __init__(self, options: MetricOptions) -> None:
        if options.cka_batch < 2 * SMALLEST:
            raise AttnprobeError(
                f"a CKA mini-batch of {options.cka_batch} images is too small",
                f"use {2 * SMALLEST} or more",
            )
        self.options = options
        self.waiting: list[list[Tensor]] = []
        self.done: list[np.ndarray] = []
        self.grams: list[np.ndarray] = []
        self.sizes: list[int] = []

    def update(self, features: Features) -> None:
        """Take one block output of one batch."""
        index = features.layer.index
        if index == 0:  # a new batch: whatever waits is complete over all layers
            self._drain(keep=SMALLEST)
        if index == len(self.waiting):
            self.waiting.append([])
        self.waiting[index].append(pool(features, self.options.cka_tokens))

    def merge(self, other: "CkaAccumulator") -> None:
        """Take over the images of another device, after this one's."""
        self._drain(keep=0)
        self.done += other.done
        self.grams += other.grams
        self.sizes += other.sizes
        for index, parts in enumerate(other.waiting):
            if index == len(self.waiting):
                self.waiting.append([])
            self.waiting[index] += parts
        self._drain(keep=SMALLEST)

    def samples(self) -> np.ndarray:
        """Return HSIC pseudo-values, float64 [images, layers, layers].

        Raises:
            AttnprobeError: Fewer than 5 images were seen.
        """
        count = self._count()
        if count >= SMALLEST:
            self._drain(keep=0)
        elif not self.done:
            raise AttnprobeError(
                f"CKA needs at least {SMALLEST} images, got {count}",
                "give more images, or leave cka out",
            )
        return np.concatenate(self.done)

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the Gram matrices: all that CKA with another model needs, whatever its width.

        `grams`: `values` float32 [layers, pairs], the upper triangles of all mini-batches side
        by side, each layer divided by its root mean square (CKA does not see scale), and
        `sizes`, the images of each mini-batch. Empty for the biased estimator.
        """
        if not self.grams:
            return {}
        values = np.concatenate(self.grams, axis=1)
        norm = np.sqrt((values**2).mean(1, keepdims=True))
        values = np.divide(values, norm, out=values, where=norm > 0)
        parts = {"values": values.astype(np.float32), "sizes": np.array(self.sizes)}
        return {"grams": parts}

    def _count(self) -> int:
        return sum(part.shape[0] for part in self.waiting[-1]) if self.waiting else 0

    def _drain(self, *, keep: int) -> None:
        """Turn waiting images into samples; never leave a tail smaller than `keep`."""
        size = self.options.cka_batch
        while (count := self._count()) and (keep == 0 or count >= size + keep):
            # a tail too small for a mini-batch of its own is folded into this one
            take = count if count < size + SMALLEST else size
            layers = [torch.cat(parts) for parts in self.waiting]
            self._add(layers, take)
            self.waiting = [[x[take:]] if count > take else [] for x in layers]

    def _add(self, layers: list[Tensor], take: int) -> None:
        if self.options.cka_estimator == "biased":
            _warn_if_wide(layers, take)
            x = [layer[:take].double() for layer in layers]
            value = biased_hsic(torch.stack([layer @ layer.T for layer in x]))
            self.done.append(value.cpu().expand(take, -1, -1).numpy())
            return
        gram = np.concatenate([grams(layer[None, :take]).cpu().numpy() for layer in layers])
        row, col = np.triu_indices(take, 1)
        self.grams.append(gram[:, row, col])
        self.sizes.append(take)
        self.done.append(pseudo_values(gram))


def _warn_if_wide(layers: list[Tensor], images: int) -> None:
    width = max(layer.shape[1] for layer in layers)
    if width > images:
        warnings.warn(
            f"{width} features outnumber {images} images in a mini-batch: biased CKA of pure noise "
            "is near 1 there; use the unbiased estimator",
            stacklevel=2,
        )


METRIC = Metric(
    name="cka",
    title="CKA between layers",
    axes=("layer_a", "layer_b"),
    needs="features",
    version=1,
    unit=lambda options: "",
    definition=lambda options: (
        f"linear, {options.cka_estimator} HSIC, {options.cka_tokens} tokens of block outputs, "
        f"mini-batches of {options.cka_batch}, v1"
    ),
    start=CkaAccumulator,
    statistic=CKA,
)
