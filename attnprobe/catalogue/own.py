"""The user's own catalogue: a TOML file in the platform's configuration folder."""

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from attnprobe.catalogue.records import CheckpointRecord, read
from attnprobe.errors import CheckpointError, OutputError

VARIABLE = "ATTNPROBE_CATALOGUE"
_HEAD = "attnprobe's catalogue of your own checkpoints; `attnprobe checkpoints add` writes here"


def path() -> Path:
    """Return where the user's own catalogue is, or would be."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_config_path("attnprobe", appauthor=False) / "checkpoints.toml"


def records() -> dict[str, CheckpointRecord]:
    """Return the user's own records by name; none where there is no file.

    Raises:
        CheckpointError: The file cannot be read.
    """
    place = path()
    return read(place) if place.exists() else {}


def add(record: CheckpointRecord, target: Path, *, overwrite: bool = False) -> None:
    """Write a record into a catalogue file, whose comments and order stay.

    Raises:
        CheckpointError: The file is no catalogue, or has a record of that name.
        OutputError: It cannot be written.
    """
    import tomlkit

    known = read(target) if target.exists() else {}
    if record.name in known and not overwrite:
        raise CheckpointError(
            f"{target} has a record {record.name} already", "choose another name, or --overwrite"
        )
    document = _opened(target)
    if record.name in document:
        table = document[record.name]
        _fill(table, record)
    else:
        table = tomlkit.table()
        _fill(table, record)
        if document.as_string().strip():
            document.add(tomlkit.nl())
        document.add(record.name, table)
    _write(target, document.as_string())


def remove(name: str, target: Path) -> None:
    """Take a record out of a catalogue file.

    Raises:
        CheckpointError: The file has no such record.
        OutputError: It cannot be written.
    """
    known = read(target) if target.exists() else {}
    if name not in known:
        raise CheckpointError(
            f"{target} has no record {name}",
            f"it has: {', '.join(known) or 'none'}; shipped records cannot be removed",
        )
    document = _opened(target)
    document.remove(name)
    _write(target, document.as_string())


def _opened(target: Path) -> Any:
    import tomlkit

    if target.exists():
        return tomlkit.parse(target.read_text(encoding="utf-8"))
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    return document


def _fill(table: Any, record: CheckpointRecord) -> None:
    """Set what the record says, and take out what it does not say any more."""
    usual = {item.name: item.default for item in fields(CheckpointRecord)}
    for field, value in asdict(record).items():
        if field == "name":
            continue
        if value == usual[field]:
            table.pop(field, None)
        else:
            table[field] = list(value) if isinstance(value, tuple) else value


def _write(target: Path, text: str) -> None:
    """Write all or nothing: a catalogue of years must not be lost to a full disk."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        real = target.resolve()  # a link to a file that is kept elsewhere stays one
        part = real.with_name(f".{real.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(real)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}", "name another file with --to"
        ) from error
