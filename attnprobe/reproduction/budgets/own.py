"""A budget of one's own: a TOML file that names a shipped budget and says what is different."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attnprobe.errors import AttnprobeError
from attnprobe.reproduction.budgets.tables import laid
from attnprobe.study import settings
from attnprobe.study.settings import METHODS

BASE = "base"  # the key that names it
SET = {  # what a study sets of every training, and where one says it instead
    "loop": {"epochs": "[epochs] and finetune_epochs", "seed": "[seeds]"},
    "schedule": {"warmup_epochs": "[epochs], a tenth of which it is"},
    "watch": {
        "probe_images": "--val",
        "probe_limit": "images",
        "probe_every": "probes",
        "trackers": "nothing: a study has none",
    },
    "save": {"name": "nothing: runs are named by method and seed"},
    "data": {"data": "--data", "val": "--val", "workers": "--workers"},
    "model": {"init": "nothing: fine-tuning begins from the study's own", "drop_last": "dropped"},
}


def read(
    path: Path, known: Callable[[str], dict[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    """Return everything of the budget of a file.

    Args:
        path: The file.
        known: Gives everything of a shipped budget.
        names: Names of the shipped budgets.

    Raises:
        AttnprobeError: It cannot be read, is no budget, or says what a study sets itself.
            Options of a training are not looked into: training checks its own.
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
    try:
        for key, value in tables.items():
            _check(key, value, base)
        told = {"model": f"that of {name}, changed", "cost": f"not that of {name}"}
        found = laid(base, told, tables, {"name": path.stem})
        settings.check(found)
    except (ValueError, TypeError, RecursionError) as error:
        raise AttnprobeError(
            f"{path}: {error!s:.400}", f"see README, and the budget {name}"
        ) from error
    return found


def _check(key: str, value: Any, base: dict[str, Any]) -> None:
    """Refuse a key that no budget has, and a value of another shape than there."""
    if key not in base or key == "name":
        usable = ", ".join(sorted({*base, BASE} - {"name"}))
        raise ValueError(f"it has the key {key!r:.40}, but keys are: {usable}")
    if type(value) is not type(base[key]) or (type(value) is int and value < 1):
        raise TypeError(f"{key} cannot be {value!r:.40}, but for instance {base[key]!r:.60}")
    if key in ("training", "finetuning"):
        _check_sections(key, value)
    elif key in ("methods", "finetunings", "workers"):
        for method, held in _of_methods(key, value):
            if key != "workers":
                _check_sections(f"{key}.{method}", held)
            elif type(held) is not int or held < 1:
                raise TypeError(f"{key}.{method} cannot be {held!r:.40}, but a number from 1")


def _of_methods(key: str, table: Any) -> Iterator[tuple[str, Any]]:
    for method, held in table.items():
        if method not in METHODS:
            raise ValueError(f"[{key}] names {method!r:.40}, but methods are {', '.join(METHODS)}")
        yield method, held


def _check_sections(place: str, table: Any) -> None:
    """Refuse what is no table of sections, and options that the study sets itself."""
    if not isinstance(table, dict):
        raise TypeError(f"[{place}] cannot be {table!r:.40}, but a table")
    for section, options in table.items():
        if not isinstance(options, dict):
            raise TypeError(f"{place}.{section} cannot be {options!r:.40}, but a table of options")
        for option in options:
            if elsewhere := SET.get(section, {}).get(option):
                raise ValueError(f"{place}.{section}.{option} is set by the study; use {elsewhere}")
