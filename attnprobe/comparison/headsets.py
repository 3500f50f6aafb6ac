"""Heads as sets: how far apart are the distributions of head values, and how wide each one is.

Heads have no identity across models, so aligned layers are compared by the 1-Wasserstein distance
between their head values and by the difference of their spreads. On request heads are also
paired, by the assignment that minimises the distance between their profiles.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from attnprobe import samples, statistics
from attnprobe.alignment import layer_pairs, matched
from attnprobe.comparison.differences import Scaled, resolution, resolved, scaled
from attnprobe.comparison.options import CompareOptions
from attnprobe.results import Result


def table(a: Result, b: Result, pair: tuple[int, int], options: CompareOptions) -> pd.DataFrame:
    """Return one row a metric and pair of aligned layers.

    `value` is the difference of the spreads (standard deviation over heads, a - b) with its
    interval; `wasserstein` the distance between the sets of head means, in the metric's unit.
    """
    rows = []
    for item in _held(a, b):
        for layer_a, layer_b in layer_pairs((len(a.layers), len(b.layers))):
            if layer_a not in item.a or layer_b not in item.b:
                continue
            heads_a, heads_b = item.a[layer_a], item.b[layer_b]
            both = np.concatenate([heads_a, heads_b], axis=1)
            spread = _spread_difference(heads_a.shape[1])
            low, high = statistics.interval(both, spread, **options.draws())
            means_a, means_b = heads_a.mean(0), heads_b.mean(0)
            gap = means_a.std() - means_b.std()
            fine = resolution(a, b, item.metric) * max(np.abs(means_a).max(), np.abs(means_b).max())
            if abs(gap) <= fine:
                gap = low = high = 0.0
            row = {
                "model_a": pair[0],
                "model_b": pair[1],
                "metric": item.metric,
                "scale": item.scale,
                "layer_a": layer_a,
                "layer_b": layer_b,
                "heads_a": len(means_a),
                "heads_b": len(means_b),
                "wasserstein": wasserstein(means_a, means_b),
                "spread_a": means_a.std(),
                "spread_b": means_b.std(),
                "value": gap,
                "low": float(low),
                "high": float(high),
                "unit": item.unit,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def assignment(
    a: Result, b: Result, pair: tuple[int, int], options: CompareOptions
) -> pd.DataFrame:
    """Return one row a metric and pair of heads that the optimal assignment puts together.

    Profiles are mean distance and entropy as parts of uniform attention's, so that both weigh alike
    on any grid. `value` is the paired difference a - b with its interval.
    """
    held = list(_held(a, b))
    shared = [m for m in ("distance", "entropy") if samples.has(a, m) and samples.has(b, m)]
    profiles = [_profiles(result, shared) for result in (a, b)]
    rows = []
    for layer_a, layer_b in layer_pairs((len(a.layers), len(b.layers))):
        if layer_a not in profiles[0] or layer_b not in profiles[1]:
            continue
        couples = matched(profiles[0][layer_a], profiles[1][layer_b])
        heads_a, heads_b = (list(side) for side in zip(*couples, strict=True))
        for item in held:
            if layer_a not in item.a or layer_b not in item.b:
                continue
            sides = item.a[layer_a][:, heads_a], item.b[layer_b][:, heads_b]
            gap = resolved(*sides, resolution(a, b, item.metric), item.floor)
            low, high = statistics.interval(gap, **options.draws())
            part = {
                "model_a": pair[0],
                "model_b": pair[1],
                "metric": item.metric,
                "scale": item.scale,
                "layer_a": layer_a,
                "head_a": heads_a,
                "layer_b": layer_b,
                "head_b": heads_b,
                "value": gap.mean(0),
                "low": low,
                "high": high,
                "unit": item.unit,
            }
            rows.append(pd.DataFrame(part))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Return the 1-Wasserstein distance between two sets of values, of any sizes.

    >>> wasserstein(np.array([0.0, 1.0]), np.array([1.0]))
    0.5
    """
    size = math.lcm(len(a), len(b))
    levels = [np.repeat(np.sort(side), size // len(side)) for side in (a, b)]
    return float(np.abs(levels[0] - levels[1]).mean())


def _spread_difference(heads: int) -> statistics.Statistic:
    """Spread of the first `heads` columns less that of the rest."""
    return statistics.Statistic(lambda means: means[:, :heads].std(1) - means[:, heads:].std(1))


def _held(a: Result, b: Result) -> Iterator[Scaled]:
    """Yield the heads of both models, [images, heads] by layer, for every metric and scale."""
    return scaled(a, b, samples.by_head)


def _profiles(result: Result, metrics: list[str]) -> dict[int, np.ndarray]:
    """Return metrics of each head as parts of uniform's, [heads, metrics]; whole profiles only."""
    columns: dict[int, list[np.ndarray]] = {}
    for metric in metrics:
        heads = samples.of_uniform(result, metric, samples.by_head(result, metric))
        for layer, values in heads.items():
            columns.setdefault(layer, []).append(values.mean(0))
    whole = {layer: x for layer, x in columns.items() if len(x) == len(metrics)}
    return {layer: np.stack(x, axis=1) for layer, x in whole.items()}
