"""A track as a folder: one run folder a checkpoint, the tables over all, and where they stand.

    runs/NN-NAME/  tables/*.parquet  summary.csv  config.toml  manifest.json

The manifest says whether the track is finished; it is written first and replaced last, so that
what an interruption left behind is known for what it is.
"""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tomlkit

from attnprobe.errors import OutputError, ResultError
from attnprobe.results import Result, folders, manifest
from attnprobe.results.folders import MANIFEST, check_output
from attnprobe.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from attnprobe.tracking import Track

KIND, RUNS = "track", "runs"
KEYS = {"name": str, "word": str, "source": str, "steps": list, "runs": list}
TABLES = ("track", "track_heads", "changes", "settled")
LONGEST_NAME = 80


def begin(path: Path) -> None:
    """Make `path` an unfinished track; what was there before goes.

    Raises:
        OutputError: It cannot be written.
    """
    with _writing(path):
        folders.place(path, lambda staging: _put(staging, {"finished": False}))


def reopen(path: Path) -> None:
    """Mark a track as unfinished and keep its runs.

    Raises:
        ResultError: There is no track.
    """
    content = read(path)
    with _writing(path):
        _put(path, {**content, "finished": False})


def finish(
    track: "Track", path: Path, runs: Sequence[str], config: dict[str, Any], texts: dict[str, str]
) -> None:
    """Write what stands beside the runs, the finished manifest last.

    Args:
        track: The track.
        path: Its folder, which `begin` made and which holds the runs.
        runs: Names of the run folders, in the order of the steps.
        config: Options to accept back.
        texts: More files, by name (report, log).

    Raises:
        OutputError: It cannot be written.
    """
    content = {name: getattr(track, name) for name in ("name", "word", "source")}
    content |= {"finished": True, "steps": list(track.steps), "runs": list(runs)}
    content |= {"config": config, "files": {"tables": sorted(track.tables)}}
    with _writing(path), tempfile.TemporaryDirectory(dir=path, prefix=folders.PREFIX) as staged:
        staging = Path(staged)
        (staging / "tables").mkdir()
        for name, table in track.tables.items():
            table.to_parquet(staging / "tables" / f"{name}.parquet", index=False)
        track.tables["track"].to_csv(staging / "summary.csv", index=False)
        settings = {key: value for key, value in config.items() if value is not None}
        _write(staging / "config.toml", tomlkit.dumps(settings))
        for name, text in texts.items():
            _write(staging / name, text)
        shutil.rmtree(path / "tables", ignore_errors=True)
        for item in staging.iterdir():
            item.replace(path / item.name)
        _put(path, content)


def save(track: "Track", path: Path, *, overwrite: bool) -> Path:
    """Write a whole track with the results that it keeps."""
    target = check_output(path, overwrite=overwrite)
    begin(target)
    names = []
    for number, result in enumerate(track.results, start=1):
        names.append(run_name(number, result.name))
        result.save(target / RUNS / names[-1])
    finish(track, target, names, {}, {})
    return target


def load(path: Path) -> dict[str, Any]:
    """Return the fields of the track that a folder holds.

    Raises:
        ResultError: It is absent, unfinished or damaged.
    """
    content = read(path)
    if not content.get("finished"):
        raise ResultError(
            f"{path} holds a track that was interrupted",
            "finish it with the same `attnprobe track` command and --resume",
        )
    results = [_stripped(Result.load(path / RUNS / name)) for name in content["runs"]]
    tables = {name: _table(path / "tables" / f"{name}.parquet") for name in content["tables"]}
    fields = {key: content[key] for key in ("name", "word", "source")}
    steps = tuple(content["steps"])
    return {**fields, "steps": steps, "results": tuple(results), "tables": tables}


def read(path: Path) -> dict[str, Any]:
    """Return the checked manifest of a track folder, finished or not.

    Raises:
        ResultError: It is no track, or its manifest is damaged.
    """
    if not is_track(path):
        raise ResultError(
            f"{path} is not a track folder", "give the folder that `attnprobe track` wrote"
        )
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if content["schema"] > SCHEMA_VERSION:
            raise ValueError(f"schema {content['schema']} is of a newer attnprobe")
        if content.get("finished"):
            _check(content)
            content["tables"] = content["files"]["tables"]
            _check_names(content["tables"], r"\w+")
            missing = sorted(set(TABLES) - set(content["tables"]))
            if missing:
                raise ValueError(f"the table {missing[0]!r} is missing")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultError(
            f"{path / MANIFEST} is damaged: {error!r}", "run `attnprobe track` again with --resume"
        ) from error
    return content


def is_track(path: Path) -> bool:
    """Whether a folder says that it holds a track."""
    return manifest.kind_of(path) == KIND


def finished_runs(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every whole run folder of a track with its manifest."""
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


def _check(content: dict[str, Any]) -> None:
    for key, kind in KEYS.items():
        if not isinstance(content[key], kind):
            raise TypeError(f"{key} cannot be {content[key]!r:.60}")
    _check_names(content["runs"], r"(?!\.)[\w.+=-]+")
    steps = content["steps"]
    whole = all(type(step) in (int, float) and math.isfinite(step) for step in steps)
    if not whole or steps != sorted(set(steps)):
        raise ValueError("the steps are not ascending numbers")
    if len(steps) != len(content["runs"]) or len(steps) < 2:
        raise ValueError(f"{len(steps)} steps for {len(content['runs'])} runs")


def _check_names(names: list[Any], form: str) -> None:
    """Refuse names that leave the folder."""
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(form, name):
            raise ValueError(f"{name!r:.60} is no name")


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ResultError(
            f"cannot read {path}: {error}", "run `attnprobe track` again with --resume"
        ) from error


def _stripped(result: Result) -> Result:
    return replace(result, samples={}, arrays={})


def _put(path: Path, content: dict[str, Any]) -> None:
    """Replace the manifest at once."""
    whole = {"schema": SCHEMA_VERSION, "kind": KIND, **content}
    whole.pop("tables", None)
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    staging = path / f"{folders.PREFIX}{MANIFEST}"
    _write(staging, text)
    staging.replace(path / MANIFEST)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "free some disk or choose another --out",
        ) from error
