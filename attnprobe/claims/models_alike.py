"""Two models hold similar representations at equal depth (CKA across models)."""

import numpy as np

from attnprobe import statistics
from attnprobe.alignment import layer_pairs
from attnprobe.claims import Claim, Quantity, Thresholds
from attnprobe.grams import comparable, joint_samples
from attnprobe.results import Result


def _between(a: Result, b: Result, thresholds: Thresholds) -> Quantity | str:
    del thresholds
    if not comparable(a, b):
        return "the results keep no Gram matrices of the same mini-batches"
    depth = len(a.layers)
    rows, cols = (np.array(side) for side in zip(*layer_pairs((depth, len(b.layers))), strict=True))

    def at_equal_depth(means: np.ndarray) -> np.ndarray:
        return statistics.cka(means)[:, rows, depth + cols].mean(1)[:, None]

    return Quantity(
        joint_samples(a, b),
        at_equal_depth,
        parts=("",),
        statistic=statistics.CKA,
    )


CLAIM = Claim(
    name="models_alike",
    title="Models alike",
    needs=("cka",),
    statement="{a} and {b} hold similar representations at equal depth",
    quantity="CKA of the layers of both models at equal relative depth, mean over depths, above "
    "{alike_across:g}",
    limit="alike_across",
    thresholds={"alike_across": 0.5},
    below=False,
    between=_between,
    source="Nguyen et al. 2021",
)
