"""Paired differences between two models, position by position, and over all layers.

On every image both models have a value; their difference is the sample. Intervals are BCa
bootstrap intervals over images, p-values come from the paired permutation test, q-values control
the false discovery rate over the positions of one metric, scale, alignment and pair.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from attnprobe import samples, significance, statistics
from attnprobe.alignment import Aligned, alignments
from attnprobe.comparison.options import CompareOptions
from attnprobe.results import Result

METRICS = ("distance", "entropy", "head_kl")
VALUE, RATIO = "value", "of uniform"
# measurements of one model repeat to these parts of a value, or of the floor where it is larger
RESOLUTION, COARSE = 2e-5, 1e-2
FLOORS = {"entropy": 0.1, "head_kl": 0.1}  # nats; distances have a part of uniform's
PART = 0.01
RUNNING_STEPS = 12
Values = Callable[[Result, str], dict[int, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Scaled:
    """Per-image values of two models in one unit.

    Attributes:
        metric: Metric name.
        scale: value, or of uniform: each layer divided by what uniform attention has there.
        unit: Unit of the values; none for ratios.
        definition: Convention in words.
        a: By layer of the first model, [images] or [images, heads].
        b: By layer of the second model, likewise.
        floor: Values below this are told apart no better than this one.
    """

    metric: str
    scale: str
    unit: str
    definition: str
    a: dict[int, np.ndarray]
    b: dict[int, np.ndarray]
    floor: float


def scaled(a: Result, b: Result, values: Values = samples.by_layer) -> Iterator[Scaled]:
    """Yield every metric that both results hold, as it is and against uniform attention.

    Args:
        a: The first model's result.
        b: The other's.
        values: What to take of a result: the means of its layers, or their heads.
    """
    for metric in METRICS:
        if not (samples.has(a, metric) and samples.has(b, metric)):
            continue
        table = a.tables[metric]
        uniform = [samples.uniform(result, metric) for result in (a, b)]
        least = min((value for each in uniform for value in each.values()), default=0.0)
        plain = Scaled(
            metric,
            VALUE,
            str(table["unit"].iloc[0]),
            str(table["definition"].iloc[0]),
            values(a, metric),
            values(b, metric),
            FLOORS.get(metric, PART * least),
        )
        yield plain
        first, second = (
            samples.of_uniform(result, metric, side)
            for result, side in ((a, plain.a), (b, plain.b))
        )
        if first and second:
            told = f"as a part of uniform attention's; {plain.definition}"
            yield replace(plain, scale=RATIO, unit="", definition=told, a=first, b=second, floor=0)


def table(a: Result, b: Result, pair: tuple[int, int], options: CompareOptions) -> pd.DataFrame:
    """Return one row a metric, scale, alignment and position."""
    depths = len(a.layers), len(b.layers)
    parts = [
        _rows(item, aligned, resolution(a, b, item.metric), options)
        for item in scaled(a, b)
        for aligned in alignments(item.a, item.b, depths)
    ]
    return _of_pair(parts, pair)


def overall(a: Result, b: Result, pair: tuple[int, int], options: CompareOptions) -> pd.DataFrame:
    """Return one row a metric and scale: the mean over each model's own layers."""
    parts = []
    for item in scaled(a, b):
        nowhere = np.full(1, np.nan)
        whole = Aligned("model", nowhere, nowhere, nowhere, *_over_layers(item))
        rows = _rows(item, whole, resolution(a, b, item.metric), options)
        parts.append(rows.drop(columns=["position", "depth", "layer_a", "layer_b", "alignment"]))
    return _of_pair(parts, pair)


def running(a: Result, b: Result, pair: tuple[int, int], options: CompareOptions) -> pd.DataFrame:
    """Return the overall difference and its interval as images are added, in a random order."""
    count = len(a.images)
    sizes = np.unique(np.geomspace(min(statistics.MIN_IMAGES, count), count, RUNNING_STEPS).round())
    order = np.random.default_rng(options.seed).permutation(count)
    gaps = {
        item: resolved(*_over_layers(item), resolution(a, b, item.metric), item.floor)[order, 0]
        for item in scaled(a, b)
    }
    rows = []
    for size in sizes.astype(int):  # the outer loop, as all metrics share the draws of a size
        for item, gap in gaps.items():
            low, high = statistics.interval(gap[:size], **options.draws())
            row = {"metric": item.metric, "scale": item.scale, "images": size}
            row |= {"value": gap[:size].mean(), "low": float(low), "high": float(high)}
            rows.append(row | {"unit": item.unit})
    return _of_pair([pd.DataFrame(rows)] if rows else [], pair)


def _over_layers(item: Scaled) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over each model's own layers, [images, 1]."""
    first, second = (
        np.stack([*side.values()], axis=1).mean(1, keepdims=True) for side in (item.a, item.b)
    )
    return first, second


def resolution(a: Result, b: Result, metric: str = "") -> float:
    """Return the part of a value below which differences are measurement, not model.

    Args:
        a: One result.
        b: Another one.
        metric: Whose values; without one, of any metric.
    """
    if a.provenance.precision != b.provenance.precision:
        return COARSE
    told = [result.provenance.deviation for result in (a, b)]  # of types smaller than fp32
    shares = [share for by in told for name, share in by.items() if metric in ("", name)]
    return max([RESOLUTION, *(min(share, COARSE) for share in shares)])


def _rows(item: Scaled, aligned: Aligned, relative: float, options: CompareOptions) -> pd.DataFrame:
    gap = resolved(aligned.a, aligned.b, relative, item.floor)
    low, high = statistics.interval(gap, **options.draws())
    p = significance.sign_flip(gap, resamples=options.permutations, seed=options.seed)
    columns: dict[str, Any] = {
        "metric": item.metric,
        "scale": item.scale,
        "alignment": aligned.kind,
        "position": np.arange(gap.shape[1]),
        "depth": aligned.depth,
        "layer_a": aligned.layer_a,
        "layer_b": aligned.layer_b,
        "value_a": aligned.a.mean(0),
        "value_b": aligned.b.mean(0),
        "value": gap.mean(0),
        "low": low,
        "high": high,
        "p": p,
        "q": significance.benjamini_hochberg(p),
        "effect": significance.effect_size(gap),
        "images_needed": significance.images_needed(gap, confidence=options.confidence),
        "unit": item.unit,
        "definition": item.definition,
    }
    return pd.DataFrame(columns)


def resolved(a: np.ndarray, b: np.ndarray, relative: float, floor: float) -> np.ndarray:
    """Return a - b, with zero for what lies below the resolution of the measurement."""
    gap = a - b
    size = np.maximum(np.abs(a), np.abs(b))
    return np.where(np.abs(gap) <= relative * np.maximum(size, floor), 0.0, gap)


def _of_pair(parts: list[pd.DataFrame], pair: tuple[int, int]) -> pd.DataFrame:
    """Stack tables and say which models they are about, by number from 0."""
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts, ignore_index=True)
    whole.insert(0, "model_a", pair[0])
    whole.insert(1, "model_b", pair[1])
    return whole
