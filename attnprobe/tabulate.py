"""From per-image values to tidy tables with intervals. Torch-free.

One table a metric, plus `head_kl_mean` (each head against the others) and `layer_means` (each
layer, its heads summarised), so that every number a figure shows stands in a table.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from attnprobe import statistics
from attnprobe.results.geometry import columns_of
from attnprobe.types import LayerInfo

COLUMNS = 64  # whose resamples stay in the cache together


@dataclass(frozen=True)
class Values:
    """Per-image values of one metric.

    Attributes:
        metric: Metric name.
        axes: Columns beside the image.
        unit: Unit of the values.
        definition: Convention in words.
        layers: Values by layer index, [images, *axes without layer]; for pairs of layers one
            array [images, layers, layers] under index 0.
        uniform: Value of uniform attention by layer, where there is one.
        statistic: What turns means over images into the value.
        per_image: Whether the rows are images; if not there are no intervals and no samples.
        tokens: Names of prefix tokens, for values by token.
    """

    metric: str
    axes: tuple[str, ...]
    unit: str
    definition: str
    layers: dict[int, np.ndarray]
    uniform: dict[int, float]
    statistic: statistics.Statistic = statistics.MEAN
    per_image: bool = True
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: draws and seed, the same for every table."""

    resamples: int = 2000
    seed: int = 0


def tables(values: Iterable[Values], bootstrap: Bootstrap) -> dict[str, pd.DataFrame]:
    """Return every table of a result from the values of its metrics."""
    found: dict[str, pd.DataFrame] = {}
    means: list[pd.DataFrame] = []
    for item in values:
        found[item.metric] = table(item, bootstrap)
        if {"head_a", "head_b"} <= set(item.axes):
            found[f"{item.metric}_mean"] = table(_against_others(item), bootstrap)
        if "layer_a" not in item.axes:
            means.append(_layer_means(item, bootstrap))
    columns = ["metric", "layer", "value", "low", "high", "head_min", "head_max", "head_sd"]
    empty = pd.DataFrame(columns=[*columns, "uniform", "fraction", "unit", "definition"])
    found["layer_means"] = pd.concat(means, ignore_index=True) if means else empty
    return found


def table(values: Values, bootstrap: Bootstrap) -> pd.DataFrame:
    """Return one tidy table: the axes, value, low, high, unit, definition."""
    if values.statistic is statistics.MEAN:
        samples = _flat(values)
    else:
        (samples,) = values.layers.values()
    value = values.statistic.of_means(samples.mean(0, dtype=np.float64))
    low, high = _interval(samples, values, bootstrap)
    numbers = {"value": value.ravel(), "low": low.ravel(), "high": high.ravel()}
    whole = pd.DataFrame(_index(values) | numbers)
    if {"head_a", "head_b"} <= set(values.axes):
        whole = whole[whole["head_a"] != whole["head_b"]].reset_index(drop=True)
    return whole.assign(unit=values.unit, definition=values.definition)


def samples_table(values: Values) -> pd.DataFrame:
    """Return the per-image values behind a table: image, the axes, value (float32)."""
    value = _flat(values).astype(np.float32)
    images = len(value)
    columns = {"image": np.repeat(np.arange(images), value.shape[1])}
    columns |= {name: np.tile(column, images) for name, column in _index(values).items()}
    return pd.DataFrame(columns | {"value": value.ravel()})


def layers_table(
    layers: list[LayerInfo], *, uniform: dict[str, dict[int, float]], maximum: dict[int, float]
) -> pd.DataFrame:
    """Return one row a layer: name, heads, geometry, uniform and largest values."""
    rows = []
    for layer in layers:
        row = {
            "layer": layer.index,
            "name": layer.name,
            "stage": layer.stage,
            "heads": layer.heads,
            "head_dim": layer.dim,
            **columns_of(layer.grid),
            "distance_uniform": uniform.get("distance", {}).get(layer.index),
            "distance_max": maximum.get(layer.index),
            "entropy_uniform": uniform.get("entropy", {}).get(layer.index),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _index(values: Values) -> dict[str, np.ndarray]:
    """Return the axis columns of all layers, in the order in which values lie in memory."""
    inner = values.axes if "layer_a" in values.axes else values.axes[1:]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in values.axes}
    for layer, samples in values.layers.items():
        shape = samples.shape[1:]
        for name, column in zip(inner, np.indices(shape).reshape(len(shape), -1), strict=True):
            parts[name].append(column)
        if "layer" in parts:
            parts["layer"].append(np.full(int(np.prod(shape)), layer))
    columns = {name: np.concatenate(part) for name, part in parts.items()}
    if "token" in columns:
        columns["token"] = np.asarray(values.tokens)[columns["token"]]
    return columns


def _flat(values: Values) -> np.ndarray:
    """Return the values of all layers side by side, [images, rows of the table]."""
    layers = list(values.layers.values())
    return np.concatenate([samples.reshape(len(samples), -1) for samples in layers], axis=1)


def _interval(
    samples: np.ndarray, values: Values, bootstrap: Bootstrap
) -> tuple[np.ndarray, np.ndarray]:
    """Return both limits; independent columns go in pieces that fit the cache."""
    if not values.per_image:
        missing = np.full(samples.shape[1:], np.nan)
        return missing, missing
    pieces = [samples]
    if values.statistic is statistics.MEAN:
        pieces = np.array_split(samples, -(-samples.shape[1] // COLUMNS), axis=1)
    draws = {"resamples": bootstrap.resamples, "seed": bootstrap.seed}
    limits = [statistics.interval(piece, values.statistic, **draws) for piece in pieces]
    low, high = (np.concatenate(side, axis=-1) for side in zip(*limits, strict=True))
    return low, high


def _against_others(values: Values) -> Values:
    """Mean divergence of each head from the other heads, [images, heads]."""
    return replace(
        values,
        metric=f"{values.metric}_mean",
        axes=("layer", "head"),
        definition=f"mean over the other heads of {values.definition}",
        layers={layer: _off_diagonal_mean(x) for layer, x in values.layers.items()},
    )


def _off_diagonal_mean(pairs: np.ndarray) -> np.ndarray:
    heads = pairs.shape[1]
    own = np.diagonal(pairs, axis1=1, axis2=2)
    return (pairs.sum(2) - own) / max(heads - 1, 1)


def _by_head(values: Values) -> dict[int, np.ndarray]:
    """Per-image values of each head, [images, heads]."""
    if {"head_a", "head_b"} <= set(values.axes):
        return {layer: _off_diagonal_mean(x) for layer, x in values.layers.items()}
    if "token" in values.axes:
        return {layer: x.sum(2) for layer, x in values.layers.items()}
    return values.layers


def _layer_means(values: Values, bootstrap: Bootstrap) -> pd.DataFrame:
    """Return one row a layer: the mean over heads with its interval, and the heads' spread."""
    by_layer = {
        layer: samples.reshape(*samples.shape[:2], -1).mean(2)
        for layer, samples in _by_head(values).items()
    }
    means = np.stack([heads.mean(1) for heads in by_layer.values()], axis=1)  # [images, layers]
    low, high = _interval(means, values, bootstrap)
    heads = [heads.mean(0, dtype=np.float64) for heads in by_layer.values()]
    value = np.array([layer.mean() for layer in heads])
    uniform = np.array([values.uniform.get(layer, np.nan) for layer in by_layer])
    columns = {
        "metric": values.metric,
        "layer": list(by_layer),
        "value": value,
        "low": low,
        "high": high,
        "head_min": [layer.min() for layer in heads],
        "head_max": [layer.max() for layer in heads],
        "head_sd": [layer.std() for layer in heads],
        "uniform": uniform,
        "fraction": np.divide(value, uniform, out=np.full_like(value, np.nan), where=uniform > 0),
        "unit": values.unit,
        "definition": values.definition,
    }
    return pd.DataFrame(columns)
