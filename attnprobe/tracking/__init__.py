"""Track: how attention changes over the checkpoints of one training run. Torch-free.

Checkpoints stand in the order of their steps; every number of a figure stands in a table, and the
change from the first to the last checkpoint has an interval, paired by image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from attnprobe.errors import ResultError
from attnprobe.results import Result
from attnprobe.tracking import convergence, folder, order, tables
from attnprobe.tracking.alike import called, check_alike
from attnprobe.tracking.order import Steps

__all__ = ["Steps", "Track", "check_alike", "steps_of", "track"]


@dataclass(frozen=True)
class Track:
    """The checkpoints of one training run, measured alike.

    Attributes:
        name: Label of the training run.
        results: One result a checkpoint in the order of the steps, without per-image values.
        steps: Where each checkpoint stands, ascending.
        word: What the steps count: epoch, iteration, step or checkpoint.
        source: Where the steps come from, in words.
        tables: `track` (metric, step, layer, value, low, high, head_min, head_max, head_sd,
            uniform, fraction, unit, definition), `track_heads` (metric, step, layer, head,
            value), `changes` (metric, layer, value_first, value_last, change, low, high, p, q)
            and `settled` (metric, layer, step, value, low, high).
    """

    name: str
    results: tuple[Result, ...]
    steps: tuple[float, ...]
    word: str
    source: str
    tables: dict[str, pd.DataFrame]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a track folder and return its path.

        Its runs hold tables alone, for a track keeps no per-image values.

        Raises:
            OutputError: The folder exists (and `overwrite` is false) or cannot be written.
        """
        return folder.save(self, Path(path), overwrite=overwrite)

    @staticmethod
    def load(path: str | Path) -> "Track":
        """Read a track folder.

        Raises:
            ResultError: It is absent, unfinished or damaged.
        """
        found = folder.load(Path(path))
        return Track(**found)


def track(
    results: Iterable[Result],
    steps: Sequence[float] | Steps | None = None,
    *,
    name: str = "track",
    resamples: int = 2000,
    seed: int = 0,
) -> Track:
    """Put the checkpoints of one training run in order and say what changed.

    Args:
        results: One result a checkpoint, with per-image values; any order, taken one at a time.
        steps: Their steps, in the same order; by default those that `steps_of` reads.
        name: Label of the training run.
        resamples: Bootstrap draws behind the intervals of changes.
        seed: Seed of the draws.

    Raises:
        ResultError: There are fewer than two, or two do not belong together.
    """
    reduced: list[tables.Reduced] = []
    for result in results:
        if reduced:
            check_alike(reduced[0].result, result)
        reduced.append(tables.reduce(result))
    if len(reduced) < 2:
        raise ResultError(
            f"a track takes two checkpoints or more, not {len(reduced)}",
            "give the checkpoints of one training run, e.g. runs/*.pth",
        )
    found = steps if isinstance(steps, Steps) else steps_of([r.result for r in reduced], steps)
    placed = zip(reduced, found.values, strict=True)
    items = [replace(item, step=_plain(step)) for item, step in placed]
    items.sort(key=lambda item: item.step)
    draws = {"resamples": resamples, "seed": seed}
    history = [tables.history(items), convergence.table(items, **draws)]
    if not any(map(len, history)):
        raise ResultError(
            f"{called(items[0].result)} holds no metric with one value a layer, and no CKA",
            "measure the checkpoints with -m distance, entropy or another metric",
        )
    return Track(
        name=name,
        results=tuple(replace(item.result, arrays={}) for item in items),
        steps=tuple(item.step for item in items),
        word=found.word,
        source=found.source,
        tables={
            "track": _stacked(history),
            "track_heads": tables.heads(items),
            "changes": tables.changes(items[0], items[-1], **draws),
            "settled": tables.settled(items),
        },
    )


def _stacked(parts: list[pd.DataFrame]) -> pd.DataFrame:
    whole = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return whole.reindex(columns=tables.COLUMNS)


def steps_of(results: Sequence[Result], given: Sequence[float] | None = None) -> Steps:
    """Return where checkpoints stand: as given, as they say, as they are named, or in order.

    Raises:
        ResultError: The given steps are too few or too many, or not all different.
    """
    names = [called(result) for result in results]
    if given is not None:
        return order.given(given, names)
    epochs = [_epoch(result) for result in results]
    sources = [str(result.model.get("source", "")) for result in results]
    return order.read(epochs, sources, [result.name for result in results])


def _epoch(result: Result) -> float | None:
    epoch = result.model.get("epoch")
    return float(epoch) if isinstance(epoch, int | float) else None


def _plain(step: float) -> float:
    """Return whole steps as integers, which is how they are shown."""
    return int(step) if step == int(step) else step
