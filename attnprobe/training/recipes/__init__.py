"""The papers' configurations: one TOML file a recipe, opened by what it reproduces. Torch-free.

A file begins with comment lines `# Reproduces: ...`, `# Expected: ...`, `# Cost: ...`.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from attnprobe.errors import AttnprobeError

_HERE = Path(__file__).parent
_LINE = re.compile(r"^# (Reproduces|Expected|Cost): (.*(?:\n#   .*)*)", re.MULTILINE)


class Recipe(NamedTuple):
    """One configuration file.

    Attributes:
        name: The file's name.
        objective: What it trains for.
        reproduces: Which published run it is.
        expected: The score that was published for it, or measured here.
        cost: What it takes.
        tables: Its nested tables.
    """

    name: str
    objective: str
    reproduces: str
    expected: str
    cost: str
    tables: dict[str, Any]


def names(objective: str | None = None) -> tuple[str, ...]:
    """Names of all recipes, or of one objective's."""
    found = sorted(path.stem for path in _HERE.glob("*.toml"))
    return tuple(name for name in found if objective in (None, load(name).objective))


def load(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        AttnprobeError: There is none of that name.
    """
    path = _HERE / f"{name}.toml"
    if name not in {item.stem for item in _HERE.glob("*.toml")}:
        known = sorted(item.stem for item in _HERE.glob("*.toml"))
        raise AttnprobeError(f"unknown recipe {name!r}", f"choose one of: {', '.join(known)}")
    text = path.read_text(encoding="utf-8")
    said = {key.lower(): re.sub(r"\n#\s+", " ", value) for key, value in _LINE.findall(text)}
    tables = tomllib.loads(text)
    return Recipe(name=name, objective=tables["objective"], tables=tables, **said)
