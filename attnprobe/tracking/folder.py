"""A track as a folder: one run folder a checkpoint, the tables over all, and where they stand.

See `results.collection` for what lies where, and how an interruption is told.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import ResultError
from attnprobe.results import Result, collection, columns, manifest, parquet, schema
from attnprobe.results.folders import MANIFEST, check_output
from attnprobe.tracking.tables import CHANGES, COLUMNS, ENDS, HEADS, MEANS, TESTED

if TYPE_CHECKING:
    from attnprobe.tracking import Track

KIND = "track"
KEYS = {"name": str, "word": str, "source": str, "steps": list, "runs": list}
LAST = 1e15  # steps are below, so that each has a number of its own
AGAIN = "run `attnprobe track` again with --resume"
SETTLED = ["metric", "layer", "step", "value", "low", "high", "unit", "definition"]
TABLES = {"track": COLUMNS, "track_heads": HEADS, "changes": CHANGES, "settled": SETTLED}
KEY = ("metric", "layer", "head")
NUMBERS = {*MEANS, *ENDS, *TESTED}


def finish(
    track: "Track", path: Path, runs: Sequence[str], config: dict[str, Any], texts: dict[str, str]
) -> None:
    """Write what stands beside the runs, the finished manifest last.

    Args:
        track: The track.
        path: Its folder, which holds the runs.
        runs: Names of the run folders, in the order of the steps.
        config: Options to accept back.
        texts: More files, by name (report, log).

    Raises:
        OutputError: It cannot be written.
    """
    content = {name: getattr(track, name) for name in ("name", "word", "source")}
    content |= {"steps": list(track.steps), "runs": list(runs), "config": config}
    summaries = {"summary.csv": track.tables["track"]}
    files = collection.Files(track.tables, summaries, config, texts)
    collection.finish(path, KIND, content, files)


def save(track: "Track", path: Path, *, overwrite: bool) -> Path:
    """Write a whole track with the results that it keeps."""
    target = check_output(path, overwrite=overwrite)
    collection.begin(target, KIND)
    names = []
    for number, result in enumerate(track.results, start=1):
        names.append(collection.run_name(number, result.name))
        result.save(target / collection.RUNS / names[-1])
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
    results = [_stripped(Result.load(path / collection.RUNS / name)) for name in content["runs"]]
    tables = {name: _table(path / "tables" / f"{name}.parquet") for name in content["tables"]}
    fields = {key: content[key] for key in ("name", "word", "source")}
    steps = tuple(content["steps"])
    deepest = max(results, key=lambda result: len(result.layers))
    schema.guarded(lambda: _check_tables(tables, steps, deepest), path, AGAIN)
    return {**fields, "steps": steps, "results": tuple(results), "tables": tables}


def read(path: Path) -> dict[str, Any]:
    """Return the checked manifest of a track folder, finished or not.

    Raises:
        ResultError: It is no track, or its manifest is damaged.
    """
    content = collection.read(path, KIND)
    try:
        if content.get("finished"):
            _check(content)
            content["tables"] = content["files"]["tables"]
            collection.check_names(content["tables"], r"\w+")
            missing = sorted(set(TABLES) - set(content["tables"]))
            if missing:
                raise ValueError(f"the table {missing[0]!r} is missing")
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path / MANIFEST} is damaged: {error!r}", AGAIN) from error
    return content


def is_track(path: Path) -> bool:
    """Whether a folder says that it holds a track."""
    return manifest.kind_of(path) == KIND


def _check(content: dict[str, Any]) -> None:
    for key, kind in KEYS.items():
        if not isinstance(content[key], kind):
            raise TypeError(f"{key} cannot be {content[key]!r:.60}")
    collection.check_names(content["runs"])
    steps = content["steps"]
    whole = all(
        type(step) in (int, float) and abs(step) < LAST and math.isfinite(step) for step in steps
    )
    if not whole or steps != sorted(set(steps)):
        raise ValueError("the steps are not ascending numbers")
    if len(steps) != len(content["runs"]) or len(steps) < 2:
        raise ValueError(f"{len(steps)} steps for {len(content['runs'])} runs")


def _table(path: Path) -> pd.DataFrame:
    try:
        return parquet.read(path)
    except parquet.UNREADABLE as error:
        raise ResultError(f"cannot read {path}: {error}", AGAIN) from error


def _check_tables(
    tables: dict[str, pd.DataFrame], steps: tuple[float, ...], deepest: Result
) -> None:
    """Refuse tables without their columns, or about other steps and layers than the runs'."""
    for name, expected in TABLES.items():
        table, frame = f"the table {name}", tables[name]
        columns.check_frame(frame, table)
        keys = [_key(frame, table, key, deepest) for key in KEY if key in expected]
        if "step" in expected:
            step = _check_steps(frame, table, steps, missing=name == "settled")
            keys += [] if name == "settled" else [step]
        for column in expected:
            if column in NUMBERS:
                columns.numbers(frame, table, column, untyped=True)
            elif column in ("unit", "definition"):
                longest = schema.UNIT if column == "unit" else columns.LONGEST_TEXT
                columns.texts(frame, table, column, longest=longest)
        columns.check_unique(keys, table)
    if tables["track"].empty:
        raise columns.DamageError("the table track is empty")


def _key(frame: pd.DataFrame, table: str, key: str, deepest: Result) -> np.ndarray:
    """Return a column of keys as counts after checking it."""
    if key == "metric":
        words = columns.texts(frame, table, key, longest=schema.NAME, form=r"\w+")
        return pd.factorize(words)[0]
    heads: Any = deepest.layers["heads"]
    most = len(heads) if key == "layer" else int(heads.max())
    return columns.integers(frame, table, key, within=(0, most - 1))


def _check_steps(
    frame: pd.DataFrame, table: str, steps: tuple[float, ...], *, missing: bool
) -> np.ndarray:
    """Return the places of the rows' steps; where some may be missing, they have none."""
    found = columns.numbers(frame, table, "step", untyped=missing)
    known = np.isin(found, steps) | (missing & np.isnan(found))
    if not known.all():
        raise columns.DamageError(f"the column step of {table} has steps that the track lacks")
    return np.searchsorted(np.asarray(steps, dtype=float), found)


def _stripped(result: Result) -> Result:
    return replace(result, samples={}, arrays={})
