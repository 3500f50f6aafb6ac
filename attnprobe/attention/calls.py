"""Reader for every other module that calls SDPA, or a softmax over its keys, in its own code.

An attention module needs no code of its own here. Where it calls SDPA the queries and keys are
read there; where it only forms the probabilities its logits are kept instead, as the bias of
empty queries and keys, so that kernels and metrics need not know the difference.
"""

from collections.abc import Callable
from functools import cache
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprobe.attention.reader import Call, RawAttention, Reader
from attnprobe.attention.sdpa import SDPA
from attnprobe.errors import CaptureError

SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_NAMES = {"scaled_dot_product_attention", "softmax"}


def _matches(module: nn.Module) -> bool:
    inner = (part for part in module.modules() if part is not module)
    return _attends(module) and not any(map(_attends, inner))


def _attends(module: nn.Module) -> bool:
    if type(module).__module__.startswith("torch."):
        return False
    return _calls(type(module)) or any(isinstance(x, nn.Softmax) for x in module.children())


@cache
def _calls(kind: type) -> bool:
    """Whether the code of a class names one of the calls."""
    own = [base for base in kind.__mro__ if not base.__module__.startswith(("torch.", "builtins"))]
    functions = [value for base in own for value in vars(base).values() if isfunction(value)]
    return any(_NAMES & set(function.__code__.co_names) for function in functions)


def _watch(module: nn.Module, func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    return func in SOFTMAX or SDPA.watch(module, func, args, kwargs)


def _read(module: nn.Module, call: Call, inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    if call.func not in SOFTMAX:
        return SDPA.read(module, call, inputs)
    logits = call.args[0] if call.args else call.kwargs["input"]
    axis = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim")
    if logits.ndim not in (3, 4) or axis not in (-1, logits.ndim - 1):
        raise CaptureError(
            f"{type(module).__name__} takes a softmax over axis {axis} of {tuple(logits.shape)}, "
            "which is not attention [images x windows, heads, queries, keys]",
            "this attention variant has no reader yet; add one in attnprobe/attention",
        )
    if logits.ndim == 3:  # [images x windows x heads, queries, keys]
        logits = logits.unflatten(0, (-1, heads_of(module)))
    empty = logits.new_zeros(1, 1, 1, 1)
    batch, heads, queries, keys = logits.shape
    return RawAttention(
        empty.expand(batch, heads, queries, 1), empty.expand(batch, heads, keys, 1), 0.0, logits
    )


def heads_of(module: nn.Module) -> int:
    """Return the heads that a module folds into its batch axis; 1 where it names none."""
    heads = getattr(module, "num_heads", 1)
    return heads if isinstance(heads, int) else 1


CALLS = Reader("calls", _matches, _watch, _read)
