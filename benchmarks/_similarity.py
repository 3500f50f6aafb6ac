"""CKA between the layers of two models by attnprobe and by three packages, over the same tensors.

Each peer is called as its documentation says, once over the images, without gradients. What they
compute differs: torch_cka and cka_pytorch flatten all tokens of an image and average unbiased
HSIC over mini-batches, which is attnprobe's `cka_tokens="flat"`; ckatorch compares the tokens
within each image, averages over the images of a mini-batch and keeps the last mini-batch only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from _common import Settings, passes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import attnprobe
from attnprobe import grams, statistics

Pair = tuple[attnprobe.LoadedModel, attnprobe.LoadedModel]
PACKAGES = {"torch_cka": "torch_cka", "ckatorch": "ckatorch", "cka_pytorch": "cka-pytorch"}


def ours(models: Pair, images: Tensor, batch: int, settings: Settings, **changes: Any) -> Any:
    """Return CKA of a's layers with b's, [layers, layers]: two runs and their Gram matrices."""
    a, b = (
        settings.analyze(model, images, metrics=("cka",), batch_size=batch, **changes)
        for model in models
    )
    joint = grams.joint_samples(a, b)  # [images, layers of both, layers of both]
    depth = len(a.layers)
    return statistics.cka(joint.mean(0))[:depth, depth:]


def torch_cka(models: Pair, images: Tensor, batch: int, settings: Settings) -> Any:
    """Return the matrix of torch_cka, [layers, layers]."""
    from torch_cka import CKA  # pyright: ignore[reportMissingImports]

    a, b = (model.module for model in models)
    with unhooked(a, b), passes(settings):
        layers = {"model1_layers": names(a), "model2_layers": names(b)}
        found = CKA(a, b, "a", "b", **layers, device=settings.device)
        found.compare(
            DataLoader(TensorDataset(images), batch), DataLoader(TensorDataset(images), batch)
        )
        return found.export()["CKA"].float().numpy()


def ckatorch(models: Pair, images: Tensor, batch: int, settings: Settings) -> Any:
    """Return the matrix of ckatorch, [layers, layers]."""
    from ckatorch import CKA  # pyright: ignore[reportMissingImports]

    a, b = (model.module for model in models)
    with unhooked(a, b), passes(settings):
        found = CKA(a, b, names(a), names(b), "a", "b", settings.device)
        return found(DataLoader(TensorDataset(images), batch), epochs=1).float().cpu().numpy()


def cka_pytorch(models: Pair, images: Tensor, batch: int, settings: Settings) -> Any:
    """Return the matrix of cka_pytorch, [layers, layers]."""
    from cka_pytorch import CKACalculator  # pyright: ignore[reportMissingImports]

    a, b = (model.module for model in models)
    labelled = DataLoader(TensorDataset(images, torch.zeros(len(images))), batch)
    with unhooked(a, b), passes(settings):
        layers = {"model1_layers": names(a), "model2_layers": names(b)}
        found = CKACalculator(a, b, **layers, verbose=False)
        # its epsilon keeps a division by zero away and would lower small values
        matrix = found.calculate_cka_matrix(labelled, num_epochs=1, epsilon=0.0)
        return matrix.float().cpu().numpy()


def one_batch(models: Pair, images: Tensor, settings: Settings) -> Any:
    """Return ckatorch's estimator on flattened tokens of one mini-batch, [layers, layers]."""
    from ckatorch.core import cka_batch  # pyright: ignore[reportMissingImports]

    with passes(settings):
        a, b = (blocks_of(model.module, images.to(settings.device)) for model in models)
    return np.array([[float(cka_batch(x[None], y[None])) for y in b] for x in a])


PEERS: dict[str, Callable[..., Any]] = {
    "torch_cka": torch_cka,
    "ckatorch": ckatorch,
    "cka_pytorch": cka_pytorch,
}


def present() -> dict[str, str]:
    """Return the versions of the packages that are there, and say how to get the others."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            print(f"{name} is not installed and is left out: pip install {package}")
    return found


def names(module: Any) -> list[str]:
    """Return the names of the blocks."""
    return [f"blocks.{index}" for index in range(len(module.blocks))]


def blocks_of(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the flattened output of every block, [images, tokens * channels]."""
    with attnprobe.capture(module, lambda record: None) as taps:
        module(images)
    return [feature.x.flatten(1) for feature in taps.features]


@contextmanager
def unhooked(*modules: nn.Module) -> Iterator[None]:
    """Take away the hooks that packages leave on the models."""
    parts = [part for module in modules for part in module.modules()]
    before = [dict(part._forward_hooks) for part in parts]
    try:
        yield
    finally:
        for part, hooks in zip(parts, before, strict=True):
            part._forward_hooks.clear()
            part._forward_hooks.update(hooks)
