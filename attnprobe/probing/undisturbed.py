"""Look at a model in the middle of its training and leave everything as it was found."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

# what a module does otherwise while it is looked at: set as attributes, because a model's own
# train() and eval() may do more than that (freeze, fuse, drop what they cached)
STILL = {"training": False, "grad_checkpointing": False, "_compiled_call_impl": None}
_SHELLS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return a module without the shells of torch.compile and data parallelism; same weights."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, _SHELLS):
            inner = module.module
        if inner is None:
            return module
        module = inner


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Keep flags, buffers, random states, gradients and autocast of a training as they are.

    Inside, the module is in eval mode, uncompiled, without gradient checkpointing, and no
    gradient is recorded. Neither weights nor the module move or are copied.
    """
    device = next(module.parameters()).device
    with (
        _random_states(device),
        _buffers(module),
        _switched(module),
        torch.no_grad(),
        # where torch keeps weights that were cast here, they have no gradient in the training's
        # own pass; clearing is for models that cast by themselves
        torch.autocast(device.type, enabled=False, cache_enabled=False),
    ):
        try:
            yield
        finally:
            torch.clear_autocast_cache()


@contextmanager
def _switched(module: nn.Module) -> Iterator[None]:
    changed = [
        (part, name, vars(part)[name])
        for part in module.modules()
        for name, still in STILL.items()
        if vars(part).get(name, still) is not still
    ]
    try:
        for part, name, _ in changed:
            setattr(part, name, STILL[name])
        yield
    finally:
        for part, name, value in changed:
            setattr(part, name, value)


@contextmanager
def _buffers(module: nn.Module) -> Iterator[None]:
    """Undo what a forward pass writes into buffers, such as running statistics."""
    held = [
        (part, name, buffer, buffer._version, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for part, name, buffer, version, copy in held:
            part._buffers[name] = buffer
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(copy)


@contextmanager
def _random_states(device: torch.device) -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what others use
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
