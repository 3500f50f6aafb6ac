"""Attention is local in low layers and global in high ones (Xie et al. 2023, sec. 3.1)."""

import numpy as np

from attnprobe import samples
from attnprobe.claims import Claim, Quantity, Thresholds, third
from attnprobe.results import Result


def _measure(result: Result, thresholds: Thresholds) -> Quantity | str:
    del thresholds
    placed = samples.of_uniform(result, "distance", samples.by_layer(result, "distance"))
    layers = list(placed.values())
    if len(layers) < 2:
        return "it takes two layers with a place for their tokens on the image"
    part = third(len(layers))

    def growth(means: np.ndarray) -> np.ndarray:
        return means[:, -part:].mean(1, keepdims=True) - means[:, :part].mean(1, keepdims=True)

    return Quantity(np.stack(layers, axis=1), growth, parts=("",), size=1.0)


CLAIM = Claim(
    name="turns_global",
    title="Global only in the last layers",
    needs=("distance",),
    statement="{a} is local in its first layers and global in its last",
    versus="{a} turns from local to global more than {b}",
    quantity="attention distance as a part of what uniform attention would give, mean of the "
    "last third of the layers less that of the first third, above {growth:g}",
    versus_quantity="growth of attention distance from the first to the last third of the layers, "
    "as a part of uniform attention's",
    limit="growth",
    thresholds={"growth": 0.1},
    below=False,
    measure=_measure,
)
