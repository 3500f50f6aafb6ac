"""Results to one self-contained page that opens without a network.

`report` writes a single HTML file that carries its style, its script, plotly.js and every
number it shows. The page's content security policy forbids all requests.
"""

import os
import tempfile
from pathlib import Path

from attnprobe.errors import OutputError
from attnprobe.report.page import render
from attnprobe.results import Result

__all__ = ["render", "report"]


def report(results: list[Result], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write one HTML page about one model, or several side by side, and return its path.

    Raises:
        OutputError: The file exists (and `overwrite` is false) or cannot be written.
        ResultError: There are no results, too many, or some with different units.
    """
    target = Path(path)
    _check(target, overwrite=overwrite)
    text = render(results)
    try:
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
        _write(target, text)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}",
            "choose a writable place or free some disk",
        ) from error
    return target


def _check(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder, not a file", "name the HTML file to write")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists", "pass --overwrite or choose another --out")


def _write(target: Path, text: str) -> None:
    """Write under a temporary name in the same folder, then rename into place."""
    handle, name = tempfile.mkstemp(dir=target.resolve().parent, prefix=".attnprobe-")
    staging = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        staging.chmod(0o644)  # mkstemp makes the file private, a page is to be shared
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)
