"""Which functions the forward pass of a class may call, read from its compiled code."""

from collections.abc import Collection, Iterable, Iterator
from functools import cache
from inspect import isclass, isfunction, ismodule, unwrap
from types import CodeType, FunctionType
from typing import Any

import torch

_DEPTH = 2  # functions that functions call


def reaches(kind: type, functions: Collection[Any]) -> bool:
    """Whether the forward pass of a class may call one of some functions, in code of its own.

    Methods of the class are followed, and the functions that they name, but no other classes.

    Args:
        kind: A module's class.
        functions: Functions of torch, or names of others'. They also count where a method of
            their name is called, and in scripted functions.
    """
    return _reaches(kind, tuple(functions))


@cache
def _reaches(kind: type, functions: tuple[Any, ...]) -> bool:
    wanted = {x if isinstance(x, str) else x.__name__ for x in functions}
    waiting = [(method, 0) for method in _functions([getattr(kind, "forward", None)])]
    seen = set()
    while waiting:
        function, depth = waiting.pop()
        if function in seen or depth > _DEPTH:
            continue
        seen.add(function)
        names = set(_names(function.__code__))
        named = [found for name in names for found in _named(function, names, name)]
        if wanted & names or any(_is(found, functions, wanted) for found in named):
            return True
        kinds = kind.__mro__ if "super" in names else (kind,)
        methods = _functions(getattr(base, name, None) for base in kinds for name in names)
        waiting += [(method, 0) for method in methods]
        waiting += [(found, depth + 1) for found in _functions(named)]
    return False


def _is(found: Any, functions: Collection[Any], wanted: Collection[str]) -> bool:
    """Whether a global is one of some functions, by any name, or scripted code that calls one."""
    if isinstance(found, torch.jit.ScriptFunction):
        code = str(found.inlined_graph)
        return any(f"aten::{name}(" in code for name in wanted)
    known = any(found is function for function in functions)
    return known or getattr(found, "__name__", None) in wanted


def _functions(values: Iterable[Any]) -> Iterator[FunctionType]:
    """Yield the functions among some values that are not torch's, without their decorators."""
    for value in values:
        function = unwrap(value) if callable(value) and not isclass(value) else value
        if isfunction(function) and not function.__module__.startswith("torch."):
            yield function


def _named(function: FunctionType, names: Collection[str], name: str) -> Iterator[Any]:
    """Yield what a function may mean by a name: a global, or a member of a global module."""
    value = function.__globals__.get(name)
    if value is not None:
        yield value
    if ismodule(value) and not value.__name__.startswith("torch"):
        yield from (vars(value)[member] for member in names if member in vars(value))


def _names(code: CodeType) -> Iterator[str]:
    """Yield all names in a function's code and in the functions that it makes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
