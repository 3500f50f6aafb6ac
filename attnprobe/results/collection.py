"""Several results in one folder: one run folder each, and tables over all of them.

    runs/NN-NAME/  tables/*.parquet  *.csv  config.toml  manifest.json

The manifest says what the folder is and whether it is finished; it is written first and replaced
last, so that what an interruption left behind is known for what it is.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import tomlkit

from attnprobe.errors import OutputError, ResultError
from attnprobe.results import folders, manifest, put
from attnprobe.results.folders import MANIFEST
from attnprobe.types import SCHEMA_VERSION

RUNS = "runs"
LONGEST_NAME = 80
NAME = r"(?!\.)[\w.+=-]+"  # of a run folder


@dataclass(frozen=True)
class Files:
    """What stands beside the runs.

    Attributes:
        tables: Tables over all runs, by name.
        summaries: Some of them as CSV, by file name.
        config: Options to accept back; plain values.
        texts: More files, by name (report, log).
    """

    tables: Mapping[str, pd.DataFrame]
    summaries: Mapping[str, pd.DataFrame]
    config: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)


def begin(path: Path, kind: str) -> None:
    """Make `path` an unfinished collection; what was there before goes.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path):
        folders.place(path, lambda staging: _put_manifest(staging, kind, {"finished": False}))


def reopen(path: Path, kind: str) -> None:
    """Mark a collection as unfinished and keep its runs.

    Raises:
        ResultError: There is none.
    """
    content = read(path, kind)
    with writing(path):
        _put_manifest(path, kind, {**content, "finished": False})


def finish(path: Path, kind: str, content: Mapping[str, Any], files: Files) -> None:
    """Write what stands beside the runs, the finished manifest last.

    Args:
        path: The folder, which `begin` made and which holds the runs.
        kind: What it is.
        content: What its manifest says.
        files: What else to write.

    Raises:
        OutputError: It cannot be written.
    """
    whole = {**content, "finished": True, "files": {"tables": sorted(files.tables)}}
    with writing(path), tempfile.TemporaryDirectory(dir=path, prefix=folders.PREFIX) as staged:
        staging = Path(staged)
        write_files(staging, files)
        shutil.rmtree(path / "tables", ignore_errors=True)
        for item in staging.iterdir():
            item.replace(path / item.name)
        _put_manifest(path, kind, whole)


def write_files(folder: Path, files: Files) -> None:
    """Write tables, summaries, configuration and texts into a folder."""
    (folder / "tables").mkdir()
    for name, table in files.tables.items():
        table.to_parquet(folder / "tables" / f"{name}.parquet", index=False)
    for name, table in files.summaries.items():
        table.to_csv(folder / name, index=False)
    settings = {key: value for key, value in files.config.items() if value is not None}
    put(folder / "config.toml", tomlkit.dumps(settings))
    for name, text in files.texts.items():
        put(folder / name, text)


def read(path: Path, kind: str) -> dict[str, Any]:
    """Return the manifest of a collection, of this kind and a known schema.

    Raises:
        ResultError: The folder holds no such thing, or its manifest is damaged.
    """
    if manifest.kind_of(path) != kind:
        raise ResultError(
            f"{path} is not a {kind} folder", f"give the folder that holds the {kind}"
        )
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if not 0 < content["schema"] <= SCHEMA_VERSION:
            raise ValueError(f"schema {content['schema']} is of a newer attnprobe")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultError(
            f"{path / MANIFEST} is damaged: {error!r}", "run the command again with --resume"
        ) from error
    return content


def finished_runs(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every whole run folder of a collection with its manifest."""
    places = sorted((path / RUNS).iterdir()) if (path / RUNS).is_dir() else []
    for place in places:
        try:
            yield place, manifest.read(place)
        except ResultError:
            continue


def run_name(number: int, name: str) -> str:
    """Return the name of a run folder.

    >>> run_name(3, "ckpt/../9")
    '03-ckpt-..-9'
    """
    safe = re.sub(r"[^\w.+=-]+", "-", name).encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{number:02}-{safe}"


def check_names(names: list[Any], form: str = NAME) -> None:
    """Refuse names that leave the folder.

    Raises:
        ValueError: One of them is no name.
    """
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(form, name):
            raise ValueError(f"{name!r:.60} is no name")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what fails while writing into one message."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "free some disk or choose another --out",
        ) from error


def _put_manifest(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Replace the manifest at once."""
    whole = {**content, "schema": SCHEMA_VERSION, "kind": kind}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    staging = path / f"{folders.PREFIX}{MANIFEST}"
    put(staging, text)
    staging.replace(path / MANIFEST)
