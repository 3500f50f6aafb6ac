"""Heads become alike in the last layers (Xie et al. 2023, sec. 3.2).

The divergence between heads in the last layers against that in the middle ones: near zero where
diversity collapses, near one where it is kept.
"""

import numpy as np

from attnprobe import samples
from attnprobe.claims import Claim, Quantity, Thresholds, third
from attnprobe.results import Result

TINY = 1e-9  # nats; below this the middle layers have no diversity to lose


def _measure(result: Result, thresholds: Thresholds) -> Quantity | str:
    layers = {
        layer: heads.mean(1)
        for layer, heads in samples.by_head(result, "head_kl").items()
        if heads.shape[1] > 1
    }
    count, last = len(layers), int(thresholds["last"])
    middle = slice(third(count), count - third(count))
    if last < 1 or count - last < middle.stop or middle.start >= middle.stop:
        return f"{count} layers of several heads have no {last} last ones apart from the middle"
    values = np.stack(list(layers.values()), axis=1)
    if values[:, middle].mean() < TINY:
        return "the heads of the middle layers are equal, so that there is no diversity to lose"

    def ratio(means: np.ndarray) -> np.ndarray:
        base = np.maximum(means[:, middle].mean(1, keepdims=True), TINY)
        return means[:, -last:].mean(1, keepdims=True) / base

    return Quantity(values, ratio, parts=("",))


CLAIM = Claim(
    name="diversity_collapses",
    title="Head diversity collapses",
    needs=("head_kl",),
    statement="The head diversity of {a} collapses in its last layers",
    versus="The head diversity of {a} collapses more than that of {b}",
    quantity="divergence between heads, mean of the last {last:g} layers over that of the middle "
    "third, below {collapse:g}",
    versus_quantity="divergence between heads in the last layers over that in the middle third",
    limit="collapse",
    thresholds={"collapse": 0.5, "last": 3},
    below=True,
    measure=_measure,
)
