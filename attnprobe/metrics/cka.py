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
from attnprobe.hsic import SMALLEST, pseudo_values
from attnprobe.metrics import Metric, OfFeatures
from attnprobe.statistics import CKA
from attnprobe.tensors import Features
from attnprobe.types import MetricOptions

TILE = 8192  # channels whose products are summed at once


def grams(layers: list[Tensor]) -> Tensor:
    """Return Gram matrices with zero diagonal, float64 [layers, n, n], on the features' device.

    Products are summed over tiles of channels, so that whole token sequences ("flat") are never
    copied to float64 at once.

    Args:
        layers: Features of the same n images, [n, channels] a layer; centring is not needed, as
            HSIC1 is invariant to it, but keeps the digits.
    """
    found = torch.stack([_gram(x) for x in layers])
    found.diagonal(dim1=1, dim2=2).zero_()
    return found


def _gram(features: Tensor) -> Tensor:
    n = len(features)
    gram = torch.zeros(n, n, dtype=torch.float64, device=features.device)
    for tile in features.split(TILE, dim=1):
        x = tile.double()
        x = x - x.mean(0)
        gram.addmm_(x, x.T)
    return gram


def biased_hsic(gram: Tensor) -> Tensor:
    """Return biased HSIC0 = tr(KHLH) / (n - 1)^2 of full Gram matrices, [layers, layers]."""
    n = gram.shape[1]
    centred = gram - gram.mean(1, keepdim=True)
    centred = centred - centred.mean(2, keepdim=True)
    flat = centred.flatten(1)
    return flat @ flat.T / (n - 1) ** 2


def pool(features: Features, options: MetricOptions) -> Tensor:
    """Return one vector an image: mean of patches, the CLS token, or all tokens flattened.

    Raises:
        AttnprobeError: The layer has no CLS token, or the mode is unknown.
    """
    grid, tokens = features.layer.grid, options.cka_tokens
    prefix = grid.prefix if grid else 0
    names = grid.prefix_names if grid else ()
    if tokens == "mean":
        return features.x[:, prefix:].float().mean(1)
    if tokens == "flat":
        return features.x.float().flatten(1)
    if tokens == "cls" and names[:1] == ("cls",):
        return features.x[:, 0].float().clone()  # a view would keep all tokens in memory
    raise AttnprobeError(
        f"CKA of {tokens!r} tokens is not defined for {features.layer.name}, whose "
        f"prefix tokens are: {', '.join(names) or 'none'}",
        "choose mean, flat, or cls with a model that has a CLS token",
    )


def check(options: MetricOptions) -> None:
    """Refuse mini-batches that are too small.

    Raises:
        AttnprobeError: They are.
    """
    if options.cka_batch < 2 * SMALLEST:
        raise AttnprobeError(
            f"a CKA mini-batch of {options.cka_batch} images is too small",
            f"use {2 * SMALLEST} or more",
        )


def group(layers: list[Tensor], options: MetricOptions) -> dict[str, np.ndarray]:
    """Return what one mini-batch says.

    Args:
        layers: Features of its n images, [n, channels] a layer.
        options: Conventions.

    Returns:
        `samples`: HSIC pseudo-values, float64 [n, layers, layers], NaN where n is under 5;
        `gram`: upper triangles of the Gram matrices, float32 [layers, n (n - 1) / 2], for the
        unbiased estimator.
    """
    n = len(layers[0])
    if options.cka_estimator == "biased":
        _warn_if_wide(layers, n)
        value = biased_hsic(torch.stack([x.double() @ x.double().T for x in layers])).cpu()
        return {"samples": np.repeat(value.numpy()[None], n, axis=0)}
    gram = grams(layers).cpu().numpy()
    row, col = np.triu_indices(n, 1)
    blank = np.full((n, len(layers), len(layers)), np.nan)
    samples = pseudo_values(gram) if n >= SMALLEST else blank
    return {"samples": samples, "gram": gram[:, row, col].astype(np.float32)}


def arrays(groups: list[dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Return the Gram matrices: all that CKA with another model needs, whatever its width.

    `grams`: `values` float32 [layers, pairs], the upper triangles of all mini-batches side by
    side, each layer divided by its root mean square (CKA does not see scale), and `sizes`, the
    images of each mini-batch. Empty for the biased estimator.
    """
    held = [group for group in groups if "gram" in group]
    if not held:
        return {}
    values = np.concatenate([group["gram"] for group in held], axis=1)
    norm = np.sqrt(np.square(values, dtype=np.float64).mean(1, keepdims=True))
    values = np.divide(values, norm, out=np.zeros_like(values), where=norm > 0, casting="same_kind")
    return {"grams": {"values": values, "sizes": np.array([len(g["samples"]) for g in held])}}


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
    features=OfFeatures(SMALLEST, check=check, pool=pool, group=group, arrays=arrays),
    statistic=CKA,
)
