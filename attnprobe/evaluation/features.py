"""Pooled features of a frozen model, an image a row."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from attnprobe.datasets import Pictures
from attnprobe.errors import AttnprobeError, ImagesError
from attnprobe.images import evenly_spaced
from attnprobe.images.decoding import normalise, preprocessing
from attnprobe.types import CheckpointSpec

Item = tuple[int, np.ndarray | None]


class Frozen(NamedTuple):
    """What a model makes of some images.

    Attributes:
        x: Pooled features, float32 [n, d].
        labels: Their classes, int64 [n]; -1 without labels.
        logits: Of the model's own classifier, float32 [n, classes], or None without one.
    """

    x: Tensor
    labels: np.ndarray
    logits: Tensor | None


def features(
    encoder: nn.Module,
    pictures: Pictures,
    spec: CheckpointSpec,
    *,
    batch: int = 256,
    device: Any = None,
    limit: int | None = None,
    workers: int = 0,
    pool: str = "patches",
) -> tuple[Tensor, np.ndarray]:
    """Return pooled features, float32 [n, d], and labels, int64 [n].

    The model runs in evaluation mode without gradients on timm's evaluation transform;
    modes, device and random generators are left as they were. Images that cannot be read are
    left out.

    Args:
        encoder: timm model.
        pictures: The images; without labels all classes are -1.
        spec: How images are preprocessed.
        batch: Images of one forward pass.
        device: Where to run; None: where the model is.
        limit: Images at most, evenly spaced over the set.
        workers: Processes that decode; features are the same for any number.
        pool: "patches": mean of `forward_features` over patches; "cls": its first token;
            "head": what the model's own classifier sees.

    Raises:
        AttnprobeError: No image can be read, or the model has no such features.
    """
    found = extract(
        encoder,
        pictures,
        spec,
        batch=batch,
        device=device,
        limit=limit,
        workers=workers,
        pool=pool,
    )
    return found.x, found.labels


def extract(
    encoder: nn.Module,
    pictures: Pictures,
    spec: CheckpointSpec,
    *,
    batch: int,
    device: Any,
    limit: int | None,
    workers: int,
    pool: str,
) -> Frozen:
    """Return features, labels and logits; see `features`.

    Raises:
        AttnprobeError: As `features`.
    """
    pooled = _pooling(pool, encoder)
    model: Any = encoder
    rows: list[tuple[Tensor, Tensor | None]] = []
    used: list[int] = []
    with _frozen(encoder, device) as weight:
        for indices, images in _batches(pictures, spec, batch, limit, workers):
            tokens = model.forward_features(images.to(weight.device, weight.dtype))
            logits = model.forward_head(tokens) if getattr(model, "num_classes", 0) else None
            rows.append((_kept(pooled(tokens)), None if logits is None else _kept(logits)))
            used += indices
    if not used:
        raise ImagesError(f"no image of {pictures.label} can be read", "check the files")
    labels = np.full(len(used), -1) if pictures.labels is None else pictures.labels[used]
    logits = [held for _, held in rows if held is not None]
    return Frozen(
        torch.cat([held for held, _ in rows]),
        labels.astype(np.int64),
        torch.cat(logits) if logits else None,
    )


def _kept(values: Tensor) -> Tensor:
    return values.float().cpu()


def _pooling(pool: str, encoder: Any) -> Callable[[Tensor], Tensor]:
    """Return what makes one row of features an image."""
    prefix = int(getattr(encoder, "num_prefix_tokens", 0))
    channels_last = getattr(encoder, "output_fmt", "") == "NHWC"

    def patches(tokens: Tensor) -> Tensor:
        if tokens.ndim == 3:
            return tokens[:, prefix:].mean(1)  # [n, channels]
        return tokens.mean((1, 2) if channels_last else (2, 3))

    def first(tokens: Tensor) -> Tensor:
        return tokens[:, 0]

    def head(tokens: Tensor) -> Tensor:
        return encoder.forward_head(tokens, pre_logits=True)

    known = {"patches": patches, "cls": first, "head": head}
    if pool not in known:
        raise AttnprobeError(f"unknown pooling {pool!r}", f"choose one of: {', '.join(known)}")
    if pool == "cls" and getattr(encoder, "cls_token", None) is None:
        raise AttnprobeError(f"{type(encoder).__name__} has no CLS token", "pool the patches")
    return known[pool]


@contextmanager
def _frozen(encoder: nn.Module, device: Any) -> Iterator[Tensor]:
    """Put a model in evaluation mode on a device, and everything back afterwards."""
    weight = next(encoder.parameters())
    home = weight.device
    modes = {module: module.training for module in encoder.modules()}
    try:
        if device is not None:
            encoder.to(device)
        encoder.eval()
        with torch.no_grad():
            yield next(encoder.parameters())
    finally:
        encoder.to(home)
        for module, mode in modes.items():
            module.training = mode


class _Rows(Dataset):
    """Preprocessed images by index; None of an image that cannot be read."""

    def __init__(self, pictures: Pictures, transform: Any) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item:
        try:
            return index, self.transform(self.pictures.read(index))
        except ImagesError:
            return index, None


def _batches(
    pictures: Pictures, spec: CheckpointSpec, batch: int, limit: int | None, workers: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices and images [n, 3, height, width], in order."""
    if batch < 1 or workers < 0 or (limit is not None and limit < 1):
        raise AttnprobeError(
            f"a batch of {batch}, a limit of {limit} and {workers} workers are impossible",
            "give a batch and a limit of 1 or more, and 0 or more workers",
        )
    picked = evenly_spaced(len(pictures), limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about forking and the number of cores
        chunks = iter(
            DataLoader(
                _Rows(pictures, preprocessing(spec)[0]),
                sampler=picked,
                batch_size=batch,
                num_workers=workers,
                collate_fn=list,
                generator=torch.Generator(),  # or it would draw from the global one
            )
        )
    for chunk in chunks:
        read = [(index, pixels) for index, pixels in chunk if pixels is not None]
        if read:
            stacked = np.stack([pixels for _, pixels in read])
            yield [index for index, _ in read], normalise(torch.from_numpy(stacked), spec)
