"""How far the heads of a layer lie apart in one metric, as a part of uniform attention's."""

import numpy as np

from attnprobe import samples
from attnprobe.claims import Quantity, third
from attnprobe.results import Result


def spread(result: Result, metric: str, which: str = "") -> Quantity | str:
    """Return the standard deviation over the heads of each layer; why not, where it has none.

    Args:
        result: A result with the metric by head.
        metric: Its name; uniform attention must have a value of it.
        which: Words on the heads that count, for the reason.
    """
    placed = samples.of_uniform(result, metric, samples.by_head(result, metric))
    heads = {layer: values for layer, values in placed.items() if values.shape[1] > 1}
    if len(heads) < len(result.layers):
        return f"{len(heads)} of {len(result.layers)} layers have several heads{which}"
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
