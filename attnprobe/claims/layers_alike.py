"""Low and high layers hold similar representations (Xie et al. 2023, sec. 3.2)."""

import numpy as np

from attnprobe import samples, statistics
from attnprobe.claims import Claim, Quantity, Thresholds, third
from attnprobe.results import Result


def _measure(result: Result, thresholds: Thresholds) -> Quantity | str:
    del thresholds
    values = samples.by_layer_pair(result)
    if values.shape[1] < 2:
        return "one layer has no other to be like"
    part = third(values.shape[1])

    def low_to_high(means: np.ndarray) -> np.ndarray:
        return statistics.cka(means)[:, :part, -part:].mean((1, 2))[:, None]

    return Quantity(
        values,
        low_to_high,
        parts=("",),
        statistic=statistics.CKA,
    )


CLAIM = Claim(
    name="layers_alike",
    title="Layers alike",
    needs=("cka",),
    statement="The low and high layers of {a} are alike",
    versus="The layers of {a} are more alike than those of {b}",
    quantity="CKA of the first third of the layers with the last third, mean over pairs, above "
    "{alike:g}",
    versus_quantity="CKA of the first third of the layers with the last third, mean over pairs",
    limit="alike",
    thresholds={"alike": 0.5},
    below=False,
    measure=_measure,
)
