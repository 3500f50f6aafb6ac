"""Fields of option dataclasses that carry their own help: one place per fact. Torch-free."""

from dataclasses import MISSING, Field, field, fields
from typing import Any


def option(
    default: Any, text: str, *, choices: tuple[str, ...] = (), low: Any = None, high: Any = None
) -> Any:
    """Return a dataclass field with a help text, its choices, its least and largest value.

    The bounds of a list are those of its items. A mutable default (list, dict) is copied for
    every instance.
    """
    told = {"help": text, "choices": choices, "low": low, "high": high}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=told)
    return field(default=default, metadata=told)


def default_of(item: Field) -> Any:
    """Return the default of a field, whichever way it is given."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def described(config: type) -> dict[str, Field]:
    """Return the fields of an option dataclass by name."""
    return {item.name: item for item in fields(config)}
