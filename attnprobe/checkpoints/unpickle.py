"""Unpickle tensors out of a file that also holds foreign objects, running none of them.

Handed to `torch.load` as its pickle module. Tensors, storages and ordered dicts are rebuilt;
every other class becomes an inert placeholder that is never imported and never called.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import _utils

UnpicklingError = pickle.UnpicklingError
_TENSOR_BUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")


class Placeholder:
    """Stands for an object of an unknown class; swallows whatever a pickle does to it."""

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        """Make an empty instance whatever the pickled arguments were."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignore the pickled arguments."""

    def __call__(self, *_: Any, **__: Any) -> "Placeholder":
        """Answer a pickled call with another placeholder."""
        return Placeholder()

    def __setstate__(self, state: Any) -> None:
        """Keep the pickled state inertly, out of reach of attribute look-up."""
        self.__dict__["state"] = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a mapping-like object."""

    def append(self, item: Any) -> None:
        """Drop an item of a list-like object."""

    def extend(self, items: Any) -> None:
        """Drop items of a list-like object."""

    def add(self, item: Any) -> None:
        """Drop an item of a set-like object."""


class _Frozen:
    """Wraps an allowed function so that a pickle can call it but not alter it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        raise UnpicklingError("the file tries to alter a function of torch")


def _ordered_dict(*args: Any) -> OrderedDict[Any, Any]:
    return OrderedDict(*args)


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Frozen(_ordered_dict),
    ("torch", "Size"): _Frozen(torch.Size),
    ("torch", "device"): _Frozen(torch.device),
    **{("torch._utils", name): _Frozen(getattr(_utils, name)) for name in _TENSOR_BUILDERS},
    **{
        ("torch", name): value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype)
    },
}


class Unpickler(pickle.Unpickler):
    """Resolve allowed names only; any other name is a fresh placeholder class."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the allowed object of that name, or a placeholder class."""
        allowed = ALLOWED.get((module, name))
        return type("Placeholder", (Placeholder,), {}) if allowed is None else allowed


def load(file: Any, **options: Any) -> Any:
    """Read one pickled object from an open file, as `pickle.load` would."""
    return Unpickler(file, **options).load()
