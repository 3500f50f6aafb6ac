"""Resample positions and tables to another input size or window, with timm's functions.

Absolute positions go through `resample_abs_pos_embed` (bicubic, antialiased), bias tables
through `resize_rel_pos_bias_table` (BEiT's interpolation on a geometric grid). Swin V2's bias
is a function of the offset and rotary positions are functions of the place: they are evaluated
anew, with nothing resampled.
"""

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from attnprobe.checkpoints.request import LoadOptions
from attnprobe.errors import CheckpointError
from attnprobe.types import CheckpointSpec, LoadLedger

Size = tuple[int, int]
_PLACES = re.compile(r"(^|\.)(pos_embed\w*|patch_pos|position_embeddings?|attention_biases)$")
_FOLLOWING = ("NaFlexVit",)  # resample their positions themselves, in every pass
_HOW = {
    "pos_embed": "bicubic, antialiased",
    "relative_position_bias_table": "interpolated on BEiT's geometric grid",
}


def resize(
    spec: CheckpointSpec, module: nn.Module, ledger: LoadLedger, wanted: LoadOptions
) -> tuple[CheckpointSpec, LoadLedger]:
    """Bring a loaded module to the size and window that were asked for, in place.

    Raises:
        CheckpointError: The model has no such size or window, or cannot change it.
    """
    size, window = wanted.img_size, wanted.window
    if size is None and window is None:
        return spec, ledger
    change = _changer(module, size, window)
    before, windows = _shapes(module), dict(_windows(module))
    for attention in module.modules():
        _keep_coordinates(attention)
    _attempt(change, module, size, window)
    module.requires_grad_(False)
    height, width = size or spec.input_size[1:]
    told = (*_resampled(before, _shapes(module)), *_rewindowed(windows, dict(_windows(module))))
    if size is not None and tuple(size) != tuple(spec.input_size[1:]):
        told = (f"input: {_by(spec.input_size[1:])} -> {_by((height, width))} px", *told)
    return (
        replace(spec, input_size=(spec.input_size[0], height, width)),
        replace(ledger, resampled=(*ledger.resampled, *told)),
    )


def _attempt(change: Any, module: nn.Module, size: Size | None, window: Size | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(size, window)
    except (AssertionError, LookupError, ValueError, RuntimeError, TypeError) as error:
        shapes = (("--img-size", size), ("--window", window))
        asked = " and ".join(f"{name} {_by(shape)}" for name, shape in shapes if shape)
        raise CheckpointError(
            f"{type(module).__name__} does not take {asked} ({error})",
            "choose a size of whole patches and windows",
        ) from error


def _changer(module: nn.Module, size: Size | None, window: Size | None) -> Any:
    method = getattr(module, "set_input_size", None)
    if method is None and window is None and not _placed(module):
        return partial(_tried, module)
    if method is None:
        raise CheckpointError(
            f"{type(module).__name__} cannot change its input size in this timm",
            "leave --img-size and --window out, or upgrade timm",
        )
    _check_patches(module, size)
    takes_windows = "window_size" in inspect.signature(method).parameters
    if window is not None and not takes_windows:
        raise CheckpointError(
            f"{type(module).__name__} has no windows to change: its attention is global",
            "leave --window out",
        )

    def change(size: Size | None, window: Size | None) -> None:
        method(img_size=size, **({"window_size": window} if window is not None else {}))

    return change


def _placed(module: nn.Module) -> bool:
    """Whether parameters belong to the places of one grid, which other grids would misuse."""
    if type(module).__name__ in _FOLLOWING:
        return False
    return any(map(_PLACES.search, dict(module.named_parameters())))


def _tried(module: nn.Module, size: Size, window: None) -> None:
    """Show a model whose layers follow the image (convolutions, windows) that it takes a size."""
    del window
    weight = next(module.parameters())
    with torch.inference_mode():
        module(torch.zeros(1, 3, *size, dtype=weight.dtype, device=weight.device))


def _check_patches(module: nn.Module, size: Size | None) -> None:
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    if size is None or not isinstance(patch, tuple):
        return
    if any(side < step or side % step for side, step in zip(size, patch, strict=True)):
        raise CheckpointError(
            f"--img-size {_by(size)} is no whole number of patches of {_by(patch)} px",
            f"give multiples of {_by(patch)}",
        )


def _keep_coordinates(attention: nn.Module) -> None:
    """Let Swin V2 go on normalising its offsets by the window it was trained with."""
    trained = getattr(attention, "pretrained_window_size", None)
    if trained is not None and not any(trained):
        vars(attention)["pretrained_window_size"] = tuple(attention.window_size)  # pyright: ignore[reportArgumentType]


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}


def _windows(module: nn.Module) -> Iterator[tuple[str, Size]]:
    for name, child in module.named_modules():
        window = getattr(child, "window_size", None)
        if name.endswith("attn") and isinstance(window, tuple):
            yield name, window


def _resampled(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name, shape in after.items():
        if before[name] != shape:
            how = _HOW.get(name.rpartition(".")[2], "timm's set_input_size")
            yield f"{name}: {list(before[name])} -> {list(shape)} ({how})"


def _rewindowed(before: Mapping[str, Size], after: Mapping[str, Size]) -> Iterator[str]:
    for name, window in after.items():
        if before[name] != window:
            yield f"{name}: window {_by(before[name])} -> {_by(window)}"


def _by(size: Any) -> str:
    return "x".join(str(side) for side in size)
