"""What study.toml and the numbers beside it say, each checked before it is believed."""

import io
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from attnprobe.errors import ResultError
from attnprobe.traininglog import files

METHODS = {  # in the order of figures
    "simmim": "SimMIM",
    "mae": "MAE",
    "supervised": "Supervised",
    "mocov3": "MoCo v3",
}
SCORES = {
    "own": "Own test accuracy",
    "knn": "kNN, frozen",
    "linear": "Linear probe, frozen",
    "finetuned": "Fine-tuned",
}
LARGEST = 2**22  # bytes of a file
MOST_SEEDS, MOST_EPOCHS = 100, 10**6
KEYS = ["method", "seed", "epoch", "dropped", "score"]


def read(path: Path) -> dict[str, Any]:
    """Return the settings of a study.

    Raises:
        ResultError: The file is absent, no TOML, or lacks what a study consists of.
    """
    text = files.text(path, LARGEST)
    try:
        found = tomllib.loads(text)
        check(found)
    except (ValueError, TypeError, RecursionError) as error:
        raise ResultError(
            f"{path} is damaged: {error!s:.200}", "restore it, or run the study again elsewhere"
        ) from error
    return found


def check(found: dict[str, Any]) -> None:
    """Look at what decides which runs a study has; absent drops are filled in.

    Raises:
        ValueError: A number is none, a method is none of a study, or blocks are dropped twice, or
            never none.
        TypeError: A table or list is absent.
    """
    seeds = _counts(found, "seeds", MOST_SEEDS)
    epochs = _counts(found, "epochs", MOST_EPOCHS)
    for method, number in seeds.items():
        if method not in METHODS:
            raise ValueError(f"it names the method {method!r:.40}, which is none of a study")
        if number and not epochs.get(method):
            raise ValueError(f"it does not say how many epochs {method} was trained")
    _check_drops(found.setdefault("dropped", [0]), found.setdefault("drops", []))


def _check_drops(dropped: Any, drops: Any) -> None:
    if not isinstance(dropped, list) or not isinstance(drops, list):
        raise TypeError("dropped and drops have to be lists")
    for value in dropped:
        _count(value, "dropped", 4096)
    if 0 not in dropped or len(set(dropped)) < len(dropped):
        raise ValueError(f"dropped cannot be {dropped!r:.40}: each number once, 0 among them")
    for method in drops:
        if method not in METHODS:
            raise ValueError(f"it drops blocks of {method!r:.40}")


def _counts(found: dict[str, Any], name: str, most: int) -> dict[str, int]:
    held = found.get(name)
    if not isinstance(held, dict):
        raise TypeError(f"it has no table {name}")
    return {key: _count(value, f"{name}.{key}", most) for key, value in held.items()}


def _count(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} cannot be {value!r:.40}")
    return value


def scores(path: Path) -> pd.DataFrame:
    """Return one row an accuracy: method, seed, epoch, dropped, score, value, images.

    `images` is missing where the file does not say it; the table is empty without a file.

    Raises:
        ResultError: The file is damaged, names an accuracy twice, or one is no part of one.
    """
    columns = [*KEYS, "value", "images"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    return _table(path, columns, _check_scores)


def _check_scores(frame: pd.DataFrame) -> None:
    if not set(frame["method"]) <= set(METHODS) or not set(frame["score"]) <= set(SCORES):
        raise ValueError("it names a method or score that no study has")
    if not frame["value"].between(0, 1).all():
        raise ValueError("an accuracy lies outside 0 to 1")
    if not (frame[["seed", "epoch", "dropped"]].to_numpy(float) >= 0).all():
        raise ValueError("a seed, epoch or number of dropped blocks is no count")
    if not (frame["images"].dropna().to_numpy() >= 1).all():
        raise ValueError("an accuracy is over no images")
    if frame.duplicated(KEYS).any():
        raise ValueError("it holds an accuracy twice")


def timings(path: Path) -> pd.DataFrame:
    """Return step and seconds of each step that was timed; empty without a file.

    Raises:
        ResultError: The file is damaged.
    """
    columns = ["step", "seconds"]
    return _table(path, columns, _check_timings) if path.exists() else pd.DataFrame(columns=columns)


def _check_timings(frame: pd.DataFrame) -> None:
    if not (frame["seconds"].to_numpy() >= 0).all():
        raise ValueError("a step took no number of seconds")


def _table(path: Path, columns: list[str], check: Callable[[pd.DataFrame], None]) -> pd.DataFrame:
    text = files.text(path, LARGEST)
    try:
        frame = pd.read_csv(io.StringIO(text)).assign()
        absent = [name for name in columns if name not in frame and name != "images"]
        if absent:
            raise ValueError(f"it has no column {absent[0]}")
        frame = frame.reindex(columns=columns)
        for name in {"seed", "epoch", "dropped", "value", "images", "seconds"} & set(columns):
            frame[name] = pd.to_numeric(frame[name])
        check(frame)
    except (ValueError, TypeError) as error:
        raise ResultError(
            f"{path} is damaged: {error!s:.200}", "repeat the study's command with --resume"
        ) from error
    return frame
