"""Per-image values of a saved result as arrays: by layer, by head, by pair of layers."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from attnprobe.errors import ResultError
from attnprobe.results import Result

UNIFORM = {"distance": "distance_uniform", "entropy": "entropy_uniform"}


# comparisons ask for the same values many times; they live as long as their result
_HELD: WeakKeyDictionary[Result, dict[str, dict[int, np.ndarray]]] = WeakKeyDictionary()


def by_head(result: Result, metric: str) -> dict[int, np.ndarray]:
    """Return the values of each head by layer index, float64 [images, heads].

    A head's divergence is its mean over the other heads of the layer; its prefix mass adds
    the tokens up. Layers without a value have no entry.

    Raises:
        ResultError: The result holds no per-image values of the metric, or not of every image.
    """
    held = _HELD.setdefault(result, {})
    if metric not in held:
        held[metric] = _by_head(result, metric)
    return held[metric]


def _by_head(result: Result, metric: str) -> dict[int, np.ndarray]:
    frame = _samples(result, metric).rename(columns={"head_a": "head"})
    if "head_b" in frame:
        frame = frame.loc[frame["head"] != frame["head_b"]]
    keys = ["image", "layer", "head"]
    totals = frame.groupby(keys)["value"].agg("sum" if "token" in frame else "mean")
    wide: Any = totals.unstack(["layer", "head"]).sort_index(axis=1)
    _check_whole(result, metric, wide)
    layers = wide.columns.get_level_values("layer")
    return {int(layer): wide.loc[:, layers == layer].to_numpy() for layer in layers.unique()}


def by_layer(result: Result, metric: str) -> dict[int, np.ndarray]:
    """Return the mean over heads by layer index, [images]."""
    return {layer: heads.mean(1) for layer, heads in by_head(result, metric).items()}


def by_layer_pair(result: Result) -> np.ndarray:
    """Return the HSIC samples behind a result's CKA, float64 [images, layers, layers]."""
    frame = _samples(result, "cka")
    wide: Any = frame.pivot(index="image", columns=["layer_a", "layer_b"], values="value")
    layers = len(result.layers)
    _check_whole(result, "cka", wide, columns=layers**2)
    return wide.sort_index(axis=1).to_numpy(np.float64).reshape(len(wide), layers, layers)


def has(result: Result, metric: str) -> bool:
    """Whether a result holds per-image values of a metric."""
    frame = result.samples.get(metric)
    table = result.tables.get(metric)
    if frame is None or frame.empty or table is None or table.empty:
        return False
    # with one head a layer there are no pairs of heads
    return "head_b" not in frame or bool((frame["head_a"] != frame["head_b"]).any())


def uniform(result: Result, metric: str) -> dict[int, float]:
    """Return the value of uniform attention by layer index, where there is one.

    The layer's own unit, so that a ratio to it has none.
    """
    means = result.tables["layer_means"]
    known = means[(means["metric"] == metric) & (means["uniform"] > 0)]
    return dict(zip(known["layer"].astype(int), known["uniform"].astype(float), strict=True))


def of_uniform(result: Result, metric: str, values: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return values by layer as parts of what uniform attention has, where there is that."""
    known = uniform(result, metric)
    return {layer: each / known[layer] for layer, each in values.items() if layer in known}


def _samples(result: Result, metric: str) -> pd.DataFrame:
    if not has(result, metric):
        raise ResultError(
            f"{result.name} holds no per-image values of {metric}",
            f"measure it again with -m {metric} and the average over images taken last",
        )
    return result.samples[metric].assign(value=lambda frame: frame["value"].astype(np.float64))


def _check_whole(
    result: Result, metric: str, wide: pd.DataFrame, columns: int | None = None
) -> None:
    """Refuse values that are not there for every image, or for every pair of layers."""
    short = len(wide) != len(result.images) or wide.shape[1] != (columns or wide.shape[1])
    if short or not np.isfinite(wide.to_numpy(np.float64)).all():
        raise ResultError(
            f"the per-image values of {metric} in {result.name} are incomplete",
            "measure the model again",
        )
