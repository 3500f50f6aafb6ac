"""The contract between capture and the attention variants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


class RawAttention(NamedTuple):
    """What a reader makes of one attention call (see `AttentionInputs` for the shapes)."""

    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None


@dataclass(frozen=True)
class Reader:
    """How one attention variant is read.

    Attributes:
        name: Public name.
        matches: Whether a module is this variant.
        watch: `watch(module, func, args, kwargs)` is true for the torch call to keep.
        read: `read(module, call, inputs)` turns that one call into RawAttention; `inputs`
            are the module's own positional and keyword arguments.
    """

    name: str
    matches: Callable[[nn.Module], bool]
    watch: Callable[[nn.Module, Callable, tuple, dict[str, Any]], bool]
    read: Callable[[nn.Module, "Call", tuple[tuple, dict[str, Any]]], RawAttention]


class Call(NamedTuple):
    """One torch call seen inside an attention module."""

    args: tuple
    kwargs: dict[str, Any]
    output: Tensor
    func: Callable | None = None


def kind_of(module: nn.Module) -> str:
    """Return the file and class of a module, by which variants are told apart.

    >>> kind_of(nn.Linear(1, 1))
    'linear.Linear'
    """
    kind = type(module)
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
