"""CKA between the layers of two models, from the Gram matrices that results keep.

HSIC of both models' layers and its pseudo-values follow from them, and with those the intervals.
"""

import numpy as np
import pandas as pd

from attnprobe import statistics
from attnprobe.comparison.options import CompareOptions
from attnprobe.grams import comparable, joint_samples
from attnprobe.results import Result


def table(a: Result, b: Result, pair: tuple[int, int], options: CompareOptions) -> pd.DataFrame:
    """Return one row a pair of layers: layer_a of model a, layer_b of model b."""
    if not comparable(a, b):
        return pd.DataFrame()
    values = joint_samples(a, b)
    depth = _layers(a)
    across = statistics.Statistic(
        lambda means: statistics.cka(means)[:, :depth, depth:],
        min_images=statistics.CKA.min_images,
        largest=1.0,
        valid=statistics.self_similar,
    )
    value = across.of_means(values.mean(0, keepdims=True))[0]
    low, high = statistics.interval(values, across, **options.draws())
    layer_a, layer_b = np.indices(value.shape)
    columns = {
        "model_a": pair[0],
        "model_b": pair[1],
        "layer_a": layer_a.ravel(),
        "layer_b": layer_b.ravel(),
        "value": value.ravel(),
        "low": low.ravel(),
        "high": high.ravel(),
        "unit": "",
        "definition": _definition(a),
    }
    return pd.DataFrame(columns)


def _layers(result: Result) -> int:
    return len(result.arrays["grams"]["values"])


def _definition(result: Result) -> str:
    return str(result.tables["cka"]["definition"].iloc[0])
