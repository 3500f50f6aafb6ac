"""Attention is more local than uniform attention in every layer (Xie et al. 2023, sec. 3.1)."""

import numpy as np

from attnprobe import samples
from attnprobe.claims import Claim, Quantity, Thresholds
from attnprobe.results import Result


def _measure(result: Result, thresholds: Thresholds) -> Quantity | str:
    del thresholds
    layers = samples.of_uniform(result, "distance", samples.by_layer(result, "distance"))
    if len(layers) < len(result.layers):
        return f"{len(layers)} of {len(result.layers)} layers have a place for their tokens"
    return Quantity(
        samples=np.stack(list(layers.values()), axis=1),
        of_means=lambda means: means,
        parts=tuple(f"layer {layer + 1}" for layer in layers),
        size=1.0,
    )


CLAIM = Claim(
    name="local_everywhere",
    title="Local in every layer",
    needs=("distance",),
    statement="{a} attends locally in every layer",
    versus="{a} attends more locally than {b}",
    quantity="attention distance of each layer as a part of what uniform attention would give, "
    "below {local:g}",
    versus_quantity="attention distance as a part of uniform attention's, mean over layers",
    limit="local",
    thresholds={"local": 1.0},
    below=True,
    measure=_measure,
)
