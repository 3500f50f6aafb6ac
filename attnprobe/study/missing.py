"""What a study plans and has not done yet, step by step."""

from collections.abc import Iterator

import pandas as pd

from attnprobe.results.manifest import kind_of
from attnprobe.study.folder import Run, Study, holds_runs


def missing(study: Study) -> pd.DataFrame:
    """Return step and state of every planned step that is not there."""
    rows = [*_trainings(study), *_analyses(study), *_finetunings(study)]
    count = len(study.methods)
    if count > 1 and not holds_runs(study.folder / "comparison", count):
        rows.append(("comparison", "not done yet"))
    return pd.DataFrame(rows, columns=["step", "state"])


def planned(study: Study) -> int:
    """Return how many steps the study has in all."""
    return 2 * len(study.runs) + len(list(_tunings(study))) + (len(study.methods) > 1)


def _trainings(study: Study) -> Iterator[tuple[str, str]]:
    for run in study.runs:
        if not run.finished:
            yield f"trainings/{run.method}-seed{run.seed}", _state(run)


def _state(run: Run) -> str:
    if run.training is None:
        return "cannot be read" if run.trouble else "not begun"
    held = run.training.manifest
    done = held["step"] / held["steps_per_epoch"]
    whole = held["steps"] / held["steps_per_epoch"]
    words = "under way" if held["status"] == "running" else held["status"]
    return f"{words}, epoch {done:.3g} of {whole:.3g}"


def _analyses(study: Study) -> Iterator[tuple[str, str]]:
    for run in study.runs:
        name = f"{run.method}-seed{run.seed}-epoch{run.epochs}"
        if kind_of(study.folder / "analyses" / name) != "result":
            yield f"analyses/{name}", "not done yet"


def _finetunings(study: Study) -> Iterator[tuple[str, str]]:
    scores = study.scores
    tuned = scores.loc[scores["score"] == "finetuned", ["method", "seed", "dropped"]]
    known = set(tuned.itertuples(index=False, name=None))
    for which in _tunings(study):
        if which not in known:
            yield "finetunings/{}-seed{}-drop{}".format(*which), "not done yet"


def _tunings(study: Study) -> Iterator[tuple[str, int, int]]:
    """Yield method, seed and dropped blocks of every planned fine-tuning."""
    for run in study.runs:
        for dropped in study.settings["dropped"]:
            if dropped == 0 or run.method in study.settings["drops"]:
                yield run.method, run.seed, dropped
