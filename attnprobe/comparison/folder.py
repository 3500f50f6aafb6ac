"""A saved comparison: its models' results, its options, and its tables for others to read."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from attnprobe.comparison.options import CompareOptions
from attnprobe.errors import OutputError, ResultError
from attnprobe.results import MANIFEST, Result, check_output, folders, put, write_into
from attnprobe.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from attnprobe.comparison import Comparison

KIND = "comparison"
MOST_MODELS = 8


def save(
    comparison: "Comparison",
    folder: Path,
    *,
    overwrite: bool,
    texts: dict[str, str],
    config: dict[str, Any],
) -> Path:
    """Write a comparison all-or-nothing and return its resolved path.

    Args:
        comparison: What to save.
        folder: Where to write.
        overwrite: Replace an older comparison or result there.
        texts: More files to put beside the tables, by name (report, log).
        config: What to write as config.toml; plain values.

    Raises:
        OutputError: The folder exists (and `overwrite` is false) or cannot be written.
    """
    path = check_output(folder, overwrite=overwrite)

    def write(staging: Path) -> None:
        _write(comparison, staging, config)
        for name, text in texts.items():
            put(staging / name, text)

    try:
        folders.place(path, write)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "free some disk or choose another --out",
        ) from error
    return path


def load(folder: Path) -> tuple[list[Result], CompareOptions]:
    """Return the results and options of a saved comparison.

    Raises:
        ResultError: The folder holds no comparison, or a damaged or newer one.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["kind"] != KIND or not 0 < found["schema"] <= SCHEMA_VERSION:
            raise ValueError(f"kind {found['kind']!r}, schema {found['schema']!r}")
        names = [_inner(name) for name in found["models"]]
        known = {item.name for item in fields(CompareOptions)}
        kept = {key: value for key, value in found["options"].items() if key in known}
        options = CompareOptions(**kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultError(
            f"{path} is no readable comparison: {error!r}", "run the comparison again"
        ) from error
    return [Result.load(folder / "models" / name) for name in names[:MOST_MODELS]], options


def _inner(name: Any) -> str:
    """Return the name of a folder inside `models`, which must not lead out of it."""
    if not isinstance(name, str) or not name.isdecimal():
        raise ValueError(f"{name!r} is no model of a comparison")
    return name


def _write(comparison: "Comparison", folder: Path, config: dict[str, Any]) -> None:
    names = [str(at) for at in range(1, len(comparison.results) + 1)]
    for name, result in zip(names, comparison.results, strict=True):
        (folder / "models" / name).mkdir(parents=True)
        write_into(result, folder / "models" / name)
    (folder / "tables").mkdir()
    for name, frame in comparison.tables.items():
        frame.to_parquet(folder / "tables" / f"{name}.parquet", index=False)
    comparison.tables["verdicts"].to_csv(folder / "verdicts.csv", index=False)
    comparison.tables["overall"].to_csv(folder / "summary.csv", index=False)
    put(folder / "config.toml", tomlkit.dumps(config))
    content = {
        "schema": SCHEMA_VERSION,
        "kind": KIND,
        "models": names,
        "names": [result.name for result in comparison.results],
        "options": comparison.options.flat(),
        "files": {"tables": sorted(comparison.tables)},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    put(folder / MANIFEST, text + "\n")
