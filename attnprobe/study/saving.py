"""The tables of a study as CSV files in its folder: findings.csv, tables/*.csv."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from attnprobe.errors import OutputError
from attnprobe.study.tables import Summary

FINDINGS = "findings"


def save(summary: Summary) -> list[Path]:
    """Write every table of a study that has rows, and return the paths.

    Each file is written under a temporary name and then renamed, so that a reader never sees a
    part of one. What an earlier call wrote is replaced.

    Raises:
        OutputError: A file cannot be written.
    """
    folder = summary.study.folder
    try:
        (folder / "tables").mkdir(exist_ok=True)
        return [
            _put(folder if name == FINDINGS else folder / "tables", name, table)
            for name, table in summary.tables.items()
            if len(table)
        ]
    except OSError as error:
        raise OutputError(
            f"cannot write the tables of {folder}: {error.strerror or error}",
            "make the folder writable or free some disk",
        ) from error


def _put(folder: Path, name: str, table: pd.DataFrame) -> Path:
    target = folder / f"{name}.csv"
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".attnprobe-")
    staging = Path(temporary)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(table.to_csv(index=False))
        staging.chmod(0o644)  # mkstemp makes the file private, results are to be shared
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)
    return target
