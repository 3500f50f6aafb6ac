"""Weights out of modules that were pickled whole, or by TorchScript, without their code.

A pickled module is left as a `Placeholder` with its inert state; the tensors in that state,
under the names of the modules around them, are what its `state_dict()` would give.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from attnprobe.checkpoints.reading.stackmachine import Placeholder

MOST_PARTS = 100_000
LONGEST_NAME = 300  # characters; a module that holds itself is noticed by it
_SCRIPT = "__torch__."
_MODULE = {"_parameters", "_buffers", "_modules"}
_TRANSIENT = "_non_persistent_buffers_set"


def unfolded(content: Any) -> tuple[Any, bool]:
    """Replace pickled modules by their tensors, at the top or inside mappings.

    Returns:
        The content, and whether there was any such module.

    Raises:
        ValueError: Modules hold each other without end.
    """
    if isinstance(content, Placeholder):
        return _weights(content)
    if not isinstance(content, dict):
        return content, False
    found = {key: _weights(value) for key, value in content.items() if _is_object(value)}
    plain = {key: inner for key, (inner, _) in found.items()}
    return {**content, **plain}, any(module for _, module in found.values())


def _is_object(value: Any) -> bool:
    return isinstance(value, Placeholder)


def _weights(thing: Placeholder) -> tuple[Any, bool]:
    if _is_module(thing):
        return dict(_tensors(thing)), True
    if thing.items and any(isinstance(item, Tensor | dict) for item in thing.items.values()):
        return thing.items, False  # a mapping of a class of its own
    return thing, False


def _is_module(thing: Placeholder) -> bool:
    state = thing.state
    if not isinstance(state, dict):
        return False
    return set(state) >= _MODULE or thing.name.startswith(_SCRIPT)


def _tensors(thing: Placeholder) -> Iterator[tuple[str, Tensor]]:
    left, parts = [("", thing)], 0
    while left:
        prefix, item = left.pop()
        parts += 1
        if parts > MOST_PARTS or len(prefix) > LONGEST_NAME:
            raise ValueError("its modules hold each other without end")
        children = []
        for name, value in _members(item):
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, Placeholder) and _is_module(value):
                children.append((f"{prefix}{name}.", value))
        left.extend(reversed(children))


def _members(thing: Placeholder) -> Iterator[tuple[str, Any]]:
    """Named tensors and modules in a module's state."""
    state = thing.state
    if not set(state) >= _MODULE:
        yield from state.items()
        return
    transient = state.get(_TRANSIENT)
    hidden = transient if isinstance(transient, list) else []
    for kind in ("_parameters", "_buffers", "_modules"):
        held = state[kind].items if isinstance(state[kind], Placeholder) else state[kind]
        for name, value in (held if isinstance(held, dict) else {}).items():
            if kind != "_buffers" or name not in hidden:
                yield name, value
