"""metrics.jsonl as tables: what was logged every few updates, and what evaluations gave.

A run that was resumed may say something twice: what a later line says of a step, or of those
after it, replaces what stood there.
"""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from attnprobe.traininglog import files

NAME = "metrics.jsonl"
LARGEST_FILE = 512 * 2**20  # bytes
MOST_ROWS, MOST_COLUMNS = 2_000_000, 64
LARGEST = 1e100  # of a number
LATEST = 10**15  # step
KEY = re.compile(r"\w{1,40}")
KINDS = ("train", "eval")
SPAN, LEAST = 0.04, 5  # values in a running mean of the loss: a part of all, and no fewer
RATES = ("lr", "images_per_s", "grad_norm")
SCORE = re.compile(r"(?:^|_)(?:top\d+|accuracy)$")
BEGINNING = ["step", "epoch"]
LONG = ["quantity", "step", "epoch", "value"]

Row = dict[str, float]


def read(folder: Path, *, steps_per_epoch: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what was logged of the training and of evaluations, ascending by step.

    Args:
        folder: Folder of the run.
        steps_per_epoch: Updates of an epoch, for lines that do not tell theirs.

    Raises:
        ResultError: The file is absent, too large, or damaged before its last line.
    """
    path = folder / NAME
    rows: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    lines = files.text(path, LARGEST_FILE).split("\n")
    if len(lines) > MOST_ROWS:
        raise files.damaged(path, f"it has {len(lines)} lines, more than {MOST_ROWS}")
    for number, line in enumerate(lines, start=1):
        try:
            kind, row = _row(line) if line.strip() else ("", {})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines):  # no line end: a crash cut it in the middle
                break
            raise files.damaged(path, f"line {number}: {error!r}") from error
        if kind in rows:
            _add(rows[kind], row)
    frames = [_frame(rows[kind], steps_per_epoch, path) for kind in KINDS]
    return _with_smooth(frames[0], path), frames[1]


def rates(scalars: pd.DataFrame) -> pd.DataFrame:
    """Return learning rate, throughput and gradient norm under each other, where known."""
    return _long(scalars, [name for name in RATES if name in scalars])


def scores(evals: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of evaluations under each other, where known.

    >>> scores(pd.DataFrame({"step": [9], "epoch": [1.0], "knn_top1": [0.5], "loss": [2.0]}))
       quantity  step  epoch  value
    0  knn_top1     9    1.0    0.5
    """
    return _long(evals, sorted(name for name in evals if SCORE.search(str(name))))


def _long(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    if not names:
        return pd.DataFrame(columns=LONG)
    whole = frame.melt(BEGINNING, names, "quantity", "value")
    return whole.dropna(subset=["value"]).reindex(columns=LONG).reset_index(drop=True)


def _row(line: str) -> tuple[str, Row]:
    """Return the kind of a line and its numbers; texts and lists are left out."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError(f"{line!r:.40} is no mapping")
    kind, step = found.pop("kind"), found.pop("step")
    if type(step) is not int or not 0 <= step < LATEST:
        raise ValueError(f"step cannot be {step!r:.40}")
    numbers = {name: value for name, value in found.items() if type(value) in (int, float)}
    for name in found:
        if not KEY.fullmatch(name):
            raise ValueError(f"{name!r:.60} is no name")
    # what was not finite is missing, as a null is
    row = {name: float(value) for name, value in numbers.items() if abs(value) < LARGEST}
    return str(kind), {"step": step, **row}


def _add(rows: list[Row], row: Row) -> None:
    while rows and rows[-1]["step"] > row["step"]:
        rows.pop()
    if rows and rows[-1]["step"] == row["step"]:
        row = {**rows.pop(), **row}
    rows.append(row)


def _frame(rows: list[Row], steps_per_epoch: int, path: Path) -> pd.DataFrame:
    columns: dict[str, Any] = dict.fromkeys((*BEGINNING, *(name for row in rows for name in row)))
    if len(columns) > MOST_COLUMNS:
        raise files.damaged(path, f"it has {len(columns)} quantities, more than {MOST_COLUMNS}")
    frame = pd.DataFrame(rows, columns=list(columns)).astype("float64")
    frame["epoch"] = frame["epoch"].fillna(frame["step"] / steps_per_epoch)
    return frame.astype({"step": "int64"})


def _with_smooth(scalars: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the running mean of the loss; a training that logs has a loss."""
    if len(scalars) and "loss" not in scalars:
        raise files.damaged(path, "no line of kind train has a loss")
    loss = pd.Series(scalars["loss"] if len(scalars) else [], dtype="float64")
    window = max(LEAST, round(SPAN * len(loss))) | 1  # odd: as many before a value as after it
    smooth = loss.rolling(window, center=True, min_periods=1).mean()
    order = [*BEGINNING, "loss", "loss_smooth"]
    whole = scalars.assign(loss=loss, loss_smooth=smooth)
    return whole.reindex(columns=[*order, *(name for name in whole if name not in order)])
