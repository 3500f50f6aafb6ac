"""How attention of the last layers became what it is: probes of each method's first seed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from attnprobe.claims import third
from attnprobe.errors import ResultError
from attnprobe.frames import layer_means
from attnprobe.results import Result
from attnprobe.study.folder import Run, Study
from attnprobe.traininglog.pictures import spread

MOST = 40  # probes of a run that are read
COLUMNS = ["method", "seed", "step", "epoch", "metric", "value", "unit"]
METRICS = {"distance": True, "entropy": True, "head_kl": False}  # whether as a part of uniform's


def emergence(study: Study) -> pd.DataFrame:
    """Return the means over the last third of the layers at each probe.

    Distance and entropy are parts of what uniform attention would have; divergence is in nats.
    A method has rows once a run of it has two probes that can be read.
    """
    rows: list[dict[str, Any]] = []
    for method in study.methods:
        for run in (each for each in study.runs if each.method == method):
            found = list(_of_run(run))
            if len({row["step"] for row in found}) > 1:
                rows += found
                break
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_run(run: Run) -> Iterator[dict[str, Any]]:
    for at in spread(list(range(len(run.probes))), MOST):
        try:
            result = run.probes[at]
        except ResultError:  # one that is being written, or damaged: the others tell enough
            continue
        step, epoch = result.model.get("step", at), result.model.get("epoch", 0)
        if not all(isinstance(when, int | float) for when in (step, epoch)):
            continue
        for metric, relative in METRICS.items():
            value, unit = _of_last(result, metric, relative=relative)
            if value is not None:
                told = {"method": run.method, "seed": run.seed, "step": step, "epoch": epoch}
                yield told | {"metric": metric, "value": value, "unit": unit}


def _of_last(result: Result, metric: str, *, relative: bool) -> tuple[float | None, str]:
    means = layer_means(result, metric)
    values = means["value"].to_numpy(float)
    if relative:
        values = values / means["uniform"].to_numpy(float)
    last = values[len(values) - third(len(values)) :] if len(values) else values
    if not len(last) or np.isnan(last).any():
        return None, ""
    return float(last.mean()), "of uniform" if relative else str(means["unit"].iloc[0])
