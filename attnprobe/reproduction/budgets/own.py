"""A budget of one's own: a TOML file that names a shipped budget and says what is different."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnprobe.errors import AttnprobeError
from attnprobe.reproduction.budgets.tables import laid
from attnprobe.study import settings

BASE = "base"  # the key that names it


def read(
    path: Path, known: Callable[[str], dict[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    """Return everything of the budget of a file.

    Args:
        path: The file.
        known: Gives everything of a shipped budget.
        names: Names of the shipped budgets.

    Raises:
        AttnprobeError: It cannot be read, or is no budget. Tables of a training are not looked
            into: training checks its own.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AttnprobeError(
            f"cannot read the budget {path}: {error}", f"choose one of: {', '.join(names)}"
        ) from error
    name = tables.pop(BASE, None)
    if name not in names:
        raise AttnprobeError(
            f"{path} says {BASE} = {name!r:.40}, which is no budget",
            f"let it begin with {BASE} = one of: {', '.join(names)}",
        )
    base = known(name)
    for key, value in tables.items():
        _check(path, key, value, base)
    told = {"name": path.stem, "model": f"that of {name}, changed", "cost": f"not that of {name}"}
    found = laid(base, told, tables)
    try:
        settings.check(found)
    except (ValueError, TypeError) as error:
        raise AttnprobeError(f"{path}: {error!s:.200}", f"see the budget {name}") from error
    return found


def _check(path: Path, key: str, value: Any, base: dict[str, Any]) -> None:
    """Refuse a key that no budget has, and a value of another type than there."""
    if key not in base or key == "name":
        usable = sorted({*base, BASE} - {"name"})
        raise AttnprobeError(
            f"{path} has the key {key!r:.40}, which no budget has", f"use of: {', '.join(usable)}"
        )
    if type(value) is not type(base[key]) or (type(value) is int and value < 1):
        raise AttnprobeError(
            f"{path}: {key} cannot be {value!r:.40}", f"write it like {base[key]!r:.60}"
        )
