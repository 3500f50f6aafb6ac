"""A training configuration: defaults <- objective <- recipe <- file <- flags. Torch-free."""

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tomlkit

from attnprobe.errors import AttnprobeError
from attnprobe.options import default_of, described
from attnprobe.training.sections import (
    SECTIONS,
    DataSection,
    LoopSection,
    ModelSection,
    OptimizerSection,
    SaveSection,
    ScheduleSection,
    WatchSection,
)

Table = Mapping[str, Any]
_CHANNELS = 3
_SAID = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list of one kind",
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a run computes; saved as config.toml and accepted back.

    Attributes:
        objective: Name of the objective.
        options: The objective's own options (its `config` dataclass).
        recipe: The recipe it began from, if any.
    """

    objective: str
    options: Any
    recipe: str = ""
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    loop: LoopSection = field(default_factory=LoopSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    watch: WatchSection = field(default_factory=WatchSection)
    save: SaveSection = field(default_factory=SaveSection)

    def tables(self) -> dict[str, Any]:
        """Return the configuration as nested plain values, the way its file is laid out."""
        head: dict[str, Any] = {"objective": self.objective}
        if self.recipe:
            head["recipe"] = self.recipe
        sections = {name: asdict(getattr(self, name)) for name in SECTIONS}
        return {**head, **sections, self.objective: asdict(self.options)}

    def toml(self) -> str:
        """Return the text of config.toml."""
        return tomlkit.dumps(self.tables())

    def flat(self) -> dict[str, Any]:
        """Return every value by its option's name."""
        found: dict[str, Any] = {}
        for table in self.tables().values():
            found |= table if isinstance(table, dict) else {}
        return found


def configure(objective: str, options: type, *layers: Table, recipe: str = "") -> TrainingConfig:
    """Lay tables over the defaults, the later over the earlier.

    Args:
        objective: Name of the objective.
        options: Its options dataclass.
        *layers: Nested tables as in a file, or flat ones by option name.
        recipe: Name to note.

    Raises:
        AttnprobeError: A key is unknown, or a value is of the wrong type or out of range.
    """
    kinds = {**SECTIONS, objective: options}
    homes = {name: section for section, kind in kinds.items() for name in described(kind)}
    values: dict[str, dict[str, Any]] = {section: {} for section in kinds}
    for layer in layers:
        for key, value in layer.items():
            if key in ("objective", "recipe"):
                _same_objective(key, value, objective)
            elif isinstance(value, Mapping) and key in kinds:
                for name, inner in value.items():
                    checked = _checked(kinds[key], name, inner, where=f"[{key}] ")
                    _lay(values[key], name, checked)
            elif key in homes:
                _lay(values[homes[key]], key, _checked(kinds[homes[key]], key, value))
            else:
                _refuse(key, [*kinds, *homes])
    made = {section: kind(**values[section]) for section, kind in kinds.items()}
    _check_channels(made["data"])
    own = made.pop(objective)
    return TrainingConfig(objective=objective, options=own, recipe=recipe, **made)


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a configuration file.

    Raises:
        AttnprobeError: It cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AttnprobeError(
            f"cannot read {path}: {error}",
            "give a TOML file such as a run's config.toml, or what --print-config prints",
        ) from error


def differences(old: TrainingConfig, new: TrainingConfig) -> list[str]:
    """Name the options in which two configurations differ, with both values."""
    before, after = old.flat(), new.flat()
    return [
        f"{name} {before.get(name)!r} -> {after[name]!r}"
        for name in after
        if after[name] != before.get(name)
    ]


def changed(config: TrainingConfig, section: str, **values: Any) -> TrainingConfig:
    """Return a configuration with some values of one section replaced."""
    return replace(config, **{section: replace(getattr(config, section), **values)})


def _lay(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a value over an older one; tables are merged."""
    older = values.get(name)
    values[name] = {**older, **value} if isinstance(older, dict) else value


def _same_objective(key: str, value: Any, objective: str) -> None:
    if key == "objective" and value != objective:
        raise AttnprobeError(
            f"the configuration is for {value!r}, the command is for {objective!r}",
            f"use the command for {value}, or another configuration",
        )


def _checked(kind: type, name: str, value: Any, *, where: str = "") -> Any:
    """Return one value as its field takes it."""
    known = described(kind)
    if name not in known:
        _refuse(name, list(known), where)
    item = known[name]
    default, low, choices = default_of(item), item.metadata["low"], item.metadata["choices"]
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(default) is list:
        value = _list(value, of_numbers="float" in str(item.type))
    if value is None or type(value) is not type(default):
        said = _SAID.get(type(default), "a table")
        raise AttnprobeError(f"{where}{name} must be {said}, got {value!r}", "correct the value")
    if isinstance(value, str) and not _spelt(value):
        raise AttnprobeError(
            f"{where}{name} is {value!r}, which is no valid UTF-8",
            "rename it, or give a link to it",
        )
    if choices and value not in choices:
        raise AttnprobeError(
            f"{where}{name} cannot be {value!r}", f"choose one of: {', '.join(choices)}"
        )
    _check_range(f"{where}{name}", value, low, item.metadata.get("high"))
    return value


def _check_channels(section: Any) -> None:
    for name in ("mean", "std"):
        if len(getattr(section, name)) != _CHANNELS:
            raise AttnprobeError(
                f"{name} has {len(getattr(section, name))} values for {_CHANNELS} channels",
                f"give --{name} R,G,B",
            )
    if 0.0 in section.std:
        raise AttnprobeError(f"std is {section.std}, which divides by 0", "give larger values")


def _spelt(value: str) -> bool:
    """Whether a text can be saved: file names may hold bytes that are no characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_range(name: str, value: Any, low: Any, high: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        if type(one) is float and not math.isfinite(one):
            raise AttnprobeError(f"{name} is {one!r}, no finite number", "give a number")
        if low is not None and one < low:
            raise AttnprobeError(f"{name} is {one!r}, below {low}", "give a larger value")
        if high is not None and one > high:
            raise AttnprobeError(f"{name} is {one!r}, above {high}", "give a smaller value")


def _list(value: Any, *, of_numbers: bool) -> list[Any] | None:
    """Return a list with items of the right type, or None."""
    if not isinstance(value, list | tuple):
        return None
    items = [float(one) if of_numbers and type(one) is int else one for one in value]
    right = all(type(one) is (float if of_numbers else str) for one in items)
    return items if right else None


def _refuse(name: str, known: list[str], where: str = "") -> None:
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
    raise AttnprobeError(f"unknown key {where}{name!r}", remedy)
