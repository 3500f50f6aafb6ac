"""Put converted tensors into a module and account for every one of them."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from attnprobe.errors import CheckpointError, PartialLoadError
from attnprobe.formats import Converted
from attnprobe.types import LoadLedger

_SHOWN = 10
_BLOCK = re.compile(r"^((?:layers\.\d+\.)?blocks\.\d+)\.")
_HEADS = re.compile(r"^(head|head_dist)\.")


def fill(module: nn.Module, converted: Converted) -> LoadLedger:
    """Load every parameter of `module` from `converted`, or fail by name.

    Raises:
        PartialLoadError: Parameters missing, tensors left over, or shapes that differ.
        CheckpointError: Weights that are not finite, dense floating-point numbers.
    """
    expected = dict(module.named_parameters()) | running_statistics(module)
    _check_missing(expected, converted)
    heads = _check_left_over(expected, converted)
    _check_shapes(expected, converted)
    _check_kinds(expected, converted)
    ready = {name: _fp32(converted.tensors[name]) for name in expected}
    _check_finite(ready)
    # other buffers are geometry, which the module has computed itself
    module.load_state_dict(ready, strict=False, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.eval()
    return _ledger(converted, heads)


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that were trained: means and variances of batch normalisation."""
    return {
        name: tensor
        for name, tensor in module.named_buffers()
        if name.endswith((".running_mean", ".running_var"))
    }


def _ledger(converted: Converted, heads: list[str]) -> LoadLedger:
    origin = {new: old for new, old in converted.origin.items() if old not in heads}
    dropped = [f"{name}: {reason}" for name, reason in converted.dropped.items()]
    return LoadLedger(
        matched=tuple(new for new, old in origin.items() if new == old),
        converted=tuple(f"{old} -> {new}" for new, old in origin.items() if new != old),
        dropped=(*dropped, *(f"{name}: head that is not a plain linear one" for name in heads)),
    )


def _fp32(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous()


def _check_missing(expected: Mapping[str, Tensor], converted: Converted) -> None:
    missing = [name for name in expected if name not in converted.tensors]
    if not missing:
        return
    whole = _whole_blocks(expected, missing)
    cause = f"{len(missing)} weights of the encoder are missing: {listed(missing)}"
    if whole:
        cause = f"whole blocks are missing ({listed(whole)}); {cause}"
    raise PartialLoadError(
        cause, "the file is incomplete or of an unknown layout: get it again, or save it whole"
    )


def _whole_blocks(expected: Iterable[str], missing: Iterable[str]) -> list[str]:
    """Blocks of which not a single parameter is there."""
    absent = set(missing)
    present = {m[1] for name in expected if name not in absent and (m := _BLOCK.match(name))}
    blocks = dict.fromkeys(m[1] for name in missing if (m := _BLOCK.match(name)))
    return [block for block in blocks if block not in present]


def _check_left_over(expected: Mapping[str, Tensor], converted: Converted) -> list[str]:
    """Refuse tensors without a place, except those of a head, which are returned."""
    left = [name for name in converted.tensors if name not in expected]
    heads = [converted.origin[name] for name in left if _HEADS.match(name)]
    others = [converted.origin[name] for name in left if not _HEADS.match(name)]
    if others:
        raise PartialLoadError(
            f"{len(others)} tensors of the file have no place in the model: {listed(others)}",
            "name its model with --arch; if timm has none, report its release and these names",
        )
    return heads


def _check_shapes(expected: Mapping[str, Tensor], converted: Converted) -> None:
    wrong = [
        f"{converted.origin[name]} {list(converted.tensors[name].shape)}, "
        f"expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if converted.tensors[name].shape != tensor.shape
    ]
    if wrong:
        raise PartialLoadError(
            f"{len(wrong)} weights have a shape that the others contradict: {listed(wrong)}",
            "the file mixes two models or was edited: get it again",
        )


def _check_kinds(expected: Mapping[str, Tensor], converted: Converted) -> None:
    """Refuse integers, complex numbers and sparse tensors, which are no plain weights."""
    tensors = {converted.origin[name]: converted.tensors[name] for name in expected}
    odd = [
        f"{name} ({tensor.dtype}, {tensor.layout})".replace("torch.", "")
        for name, tensor in tensors.items()
        if not tensor.is_floating_point() or tensor.layout != torch.strided
    ]
    if odd:
        raise CheckpointError(
            f"{len(odd)} weights are not dense floating-point tensors: {listed(odd)}",
            "save the weights dense and in floating point, before quantising or pruning",
        )


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    # a finite sum proves finite values in one cheap pass; only a bad sum is looked into
    with np.errstate(all="ignore"):
        sums = {name: tensor.numpy().sum() for name, tensor in tensors.items()}
    suspects = [name for name, total in sums.items() if not np.isfinite(total)]
    bad = [name for name in suspects if not bool(torch.isfinite(tensors[name]).all())]
    if bad:
        raise CheckpointError(
            f"{len(bad)} weights hold NaN or infinite values: {listed(bad)}",
            "training diverged or the file is damaged: use an earlier checkpoint",
        )


def listed(names: list[str]) -> str:
    """First ten names, and how many more there are.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", ... and {more} more" if more > 0 else "")
