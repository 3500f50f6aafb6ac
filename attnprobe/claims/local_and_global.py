"""Every layer keeps local and global heads side by side (Xie et al. 2023, sec. 3.1)."""

import numpy as np

from attnprobe import samples
from attnprobe.claims import Claim, Quantity, Thresholds, third
from attnprobe.results import Result


def _measure(result: Result, thresholds: Thresholds) -> Quantity | str:
    del thresholds
    placed = samples.of_uniform(result, "distance", samples.by_head(result, "distance"))
    heads = {layer: values for layer, values in placed.items() if values.shape[1] > 1}
    if len(heads) < len(result.layers):
        return (
            f"{len(heads)} of {len(result.layers)} layers have several heads with a place for "
            "their tokens"
        )
    ends = np.cumsum([values.shape[1] for values in heads.values()])[:-1]

    def spreads(means: np.ndarray) -> np.ndarray:
        return np.stack([part.std(1) for part in np.split(means, ends, axis=1)], axis=1)

    last = third(len(heads))
    return Quantity(
        samples=np.concatenate(list(heads.values()), axis=1),
        of_means=spreads,
        parts=tuple(f"layer {layer + 1}" for layer in heads),
        summary=lambda values: values[:, -last:].mean(1),
        size=1.0,
    )


CLAIM = Claim(
    name="local_and_global",
    title="Local and global heads together",
    needs=("distance",),
    statement="{a} keeps local and global heads together in every layer",
    versus="{a} keeps local and global heads together more than {b} in its last layers",
    quantity="standard deviation over a layer's heads of attention distance, as a part of what "
    "uniform attention would give, above {spread:g}",
    versus_quantity="spread of head distance as a part of uniform attention's distance, mean of "
    "the last third of the layers",
    limit="spread",
    thresholds={"spread": 0.1},
    below=False,
    measure=_measure,
)
