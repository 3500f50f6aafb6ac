"""A training run as it was written down: facts, metrics, probes and pictures. Torch-free.

    config.toml manifest.json metrics.jsonl probe/step-*/ pictures/epoch-*.png

A run may be under way, interrupted or damaged, and its folder may come from a stranger: what is
read is checked, and sizes are checked before anything is read.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from attnprobe.errors import ResultError
from attnprobe.results import Result
from attnprobe.results.manifest import kind_of
from attnprobe.traininglog import facts, files, metrics, pictures
from attnprobe.traininglog.probes import ProbeResults

__all__ = ["KIND", "TrainingRun", "is_run", "load"]

KIND = "training"
CONFIG = "config.toml"
LARGEST_CONFIG = 2**20  # bytes


@dataclass(frozen=True)
class TrainingRun:
    """What a training run has left so far.

    Attributes:
        manifest: Facts of the run: objective, model, data, device, how far it went.
        config: The options, nested as in config.toml.
        config_text: The text of config.toml.
        scalars: One row a logged update: step, epoch, loss, loss_smooth (its centred running
            mean over 4 % of the values), and what else was logged (lr, grad_norm, ...).
        evals: One row an evaluation: step, epoch, and its scores (knn_top1, linear_top1, ...).
        results: Results of the attention probe, ascending by step; read when they are asked for.
        pictures: (epoch, PNG file) of grids with images as rows, ascending; at most
            `pictures.MOST` of them, evenly chosen.
    """

    manifest: dict[str, Any]
    config: dict[str, Any]
    config_text: str
    scalars: pd.DataFrame
    evals: pd.DataFrame
    results: Sequence[Result] | ProbeResults = ()
    pictures: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Label of the run."""
        return str(self.manifest["name"])

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """What plots draw: `scalars`, and `rates` and `scores` (quantity, step, epoch, value)."""
        return {
            "scalars": self.scalars,
            "rates": metrics.rates(self.scalars),
            "scores": metrics.scores(self.evals),
        }


def load(folder: str | Path) -> TrainingRun:
    """Read a training run, finished or not.

    Raises:
        ResultError: It is no training run, or a part of it is missing or damaged.
    """
    path = Path(folder)
    if not is_run(path):
        raise ResultError(
            f"{path} is not the folder of a training run",
            "give the --out of `attnprobe pretrain` or `attnprobe train`",
        )
    manifest = facts.read(path)
    config, text = _config(path / CONFIG)
    scalars, evals = metrics.read(path, steps_per_epoch=manifest["steps_per_epoch"])
    return TrainingRun(
        manifest=manifest,
        config=config,
        config_text=text,
        scalars=scalars,
        evals=evals,
        results=ProbeResults(path / "probe"),
        pictures=pictures.read(path / "pictures"),
    )


def is_run(folder: str | Path) -> bool:
    """Whether a folder says that it holds a training run.

    >>> is_run("nowhere")
    False
    """
    return kind_of(Path(folder)) == KIND


def _config(path: Path) -> tuple[dict[str, Any], str]:
    text = files.text(path, LARGEST_CONFIG)
    try:
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:
        raise files.damaged(path, error) from error
