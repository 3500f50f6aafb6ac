"""A study as a folder: its planned runs, and what each has left so far."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from attnprobe import traininglog
from attnprobe.errors import ResultError
from attnprobe.results import MANIFEST, Result
from attnprobe.results.manifest import kind_of
from attnprobe.study import settings
from attnprobe.study.settings import METHODS
from attnprobe.traininglog import TrainingRun

FILE = "study.toml"
ANALYSES, PROBES = "analyses", "probes"


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        method: Name of its objective.
        seed: Its seed.
        epochs: Epochs that it is to be trained.
        training: What the training wrote, if it began.
        result: Attention of the trained encoder on the held-out images, if it was measured.
        trouble: Why a part of it could not be read.
    """

    method: str
    seed: int
    epochs: int
    training: TrainingRun | None = None
    result: Result | None = None
    trouble: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Label of the run."""
        return f"{METHODS[self.method]}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether it was trained to the end."""
        return self.training is not None and self.training.manifest["status"] == "finished"

    @property
    def probes(self) -> Sequence[Result]:
        """Attention during training, ascending by step; read when they are asked for."""
        return self.training.results if self.training is not None else ()  # type: ignore[return-value]


@dataclass(frozen=True)
class Study:
    """A study, whole or under way.

    Attributes:
        folder: Where it lies.
        settings: study.toml.
        runs: Every planned training, by method, then seed.
        scores: One row an accuracy: method, seed, epoch, dropped, score, value, images.
        timings: step, seconds.
        source: What the results are: `analyses` of trained encoders, or the last `probes` of the
            trainings, which stand in for all as long as an analysis is missing.
    """

    folder: Path
    settings: dict[str, Any]
    runs: tuple[Run, ...]
    scores: pd.DataFrame
    timings: pd.DataFrame = field(default_factory=pd.DataFrame)
    source: str = ANALYSES

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that are part of it, in the order of figures."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def results(self, method: str) -> list[Result]:
        """Return the results of a method's trained encoders, by seed."""
        return [r.result for r in self.runs if r.method == method and r.result is not None]

    def first(self) -> list[Result]:
        """Return one result a method, that of its first seed which has one, named by method."""
        found = [(method, self.results(method)) for method in self.methods]
        return [replace(held[0], name=METHODS[method]) for method, held in found if held]


def is_study(folder: str | Path) -> bool:
    """Whether a folder says that it holds a study.

    >>> is_study("nowhere")
    False
    """
    return (Path(folder) / FILE).is_file()


def holds_runs(folder: Path, count: int) -> bool:
    """Whether a comparison is finished and of so many runs; a study may have grown since."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return found["finished"] is True and len(found["runs"]) == count
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def load(folder: str | Path) -> Study:
    """Read a study, finished or not.

    Raises:
        ResultError: It is none, its settings or scores are damaged, or its results are of
            different images.
    """
    path = Path(folder)
    if not is_study(path):
        raise ResultError(f"{path} has no {FILE}", "give the --out of `attnprobe reproduce`")
    facts = settings.read(path / FILE)
    runs = tuple(
        _run(path, method, seed, facts["epochs"][method])
        for method in METHODS
        for seed in range(facts["seeds"].get(method, 0))
    )
    source, runs = _measured(runs)
    _check_images(runs)
    return Study(
        folder=path,
        settings=facts,
        runs=runs,
        scores=settings.scores(path / "scores.csv"),
        timings=settings.timings(path / "timings.csv"),
        source=source,
    )


def _run(path: Path, method: str, seed: int, epochs: int) -> Run:
    run = Run(method, seed, epochs)
    trained = path / "trainings" / f"{method}-seed{seed}"
    analysed = path / "analyses" / f"{method}-seed{seed}-epoch{epochs}"
    trouble, training, result = [], None, None
    try:
        training = traininglog.load(trained) if traininglog.is_run(trained) else None
    except ResultError as error:
        trouble.append(str(error.cause))
    try:
        result = Result.load(analysed) if kind_of(analysed) == "result" else None
    except ResultError as error:
        trouble.append(str(error.cause))
    return replace(run, training=training, result=result, trouble=tuple(trouble))


def _measured(runs: tuple[Run, ...]) -> tuple[str, tuple[Run, ...]]:
    """Return whether analyses or probes are the results, and the runs with them.

    Results of one kind only: the two are of different numbers of images.
    """
    absent = any(run.finished and run.result is None for run in runs)
    if not absent or not any(run.finished and len(run.probes) for run in runs):
        return ANALYSES, runs
    return PROBES, tuple(map(_of_probe, runs))


def _of_probe(run: Run) -> Run:
    if not run.finished or not run.probes:
        return replace(run, result=None)
    try:
        return replace(run, result=run.probes[-1])
    except ResultError as error:
        return replace(run, result=None, trouble=(*run.trouble, str(error.cause)))


def _check_images(runs: tuple[Run, ...]) -> None:
    held = [run for run in runs if run.result is not None]
    for run in held[1:]:
        first, other = (r.result.provenance for r in (held[0], run) if r.result is not None)
        if (first.images_sha256, first.images) != (other.images_sha256, other.images):
            raise ResultError(
                f"{held[0].name} and {run.name} were measured on different images",
                "measure every encoder on the same images, in the same order",
            )
