"""Accuracies of a study, read from what its training runs wrote. Torch-free."""

from pathlib import Path

import pandas as pd

from attnprobe import traininglog
from attnprobe.reproduction.study import Study

METRICS = "metrics.jsonl"
COLUMNS = ["method", "seed", "epoch", "dropped", "score", "value", "images"]
_TRAINED = {"knn_top1": "knn", "linear_top1": "linear", "top1": "own"}


def collect(study: Study, *, images: int) -> pd.DataFrame:
    """Return one row a score; runs that have none yet are left out.

    Args:
        study: The study.
        images: Held-out images, all of which every run is scored on.
    """
    rows: list[tuple[str, int, int, int, str, float]] = []
    for method, seed in study.runs():
        epoch = study.budget.epochs[method]
        for name, value in _last(study.training(method, seed)).items():
            if name in _TRAINED:
                rows.append((method, seed, epoch, 0, _TRAINED[name], value))
    for method, seed, dropped in study.finetunings():
        epoch = study.budget.epochs[method]
        found = _last(study.finetuning(method, seed, dropped)).get("top1")
        if found is not None:
            rows.append((method, seed, epoch, dropped, "finetuned", found))
    return pd.DataFrame(rows, columns=COLUMNS[:-1]).assign(images=images)


def _last(folder: Path) -> dict[str, float]:
    """Return the scores of a run's last evaluation, or none; it may be under way."""
    if not traininglog.is_run(folder) or not (folder / METRICS).exists():
        return {}
    evals = traininglog.load(folder).evals
    return {} if evals.empty else evals.iloc[-1].dropna().to_dict()
