"""How alike each layer is to what it will be in the last checkpoint: CKA with itself.

The Gram matrices that results keep make checkpoints comparable. Raghu et al. 2017 (SVCCA, NeurIPS)
read from such curves that layers converge from the input upwards.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attnprobe import grams, statistics
from attnprobe.results import Result
from attnprobe.tracking.tables import Reduced

METRIC = "cka_last"
DEFINITION = "of a layer's output with the same layer's in the last checkpoint"


def table(items: Sequence[Reduced], *, resamples: int, seed: int) -> pd.DataFrame:
    """Return one row a checkpoint and layer; none where a checkpoint keeps no Gram matrices."""
    last = items[-1].result
    for item in items:
        if "cka" not in item.result.tables or not grams.comparable(item.result, last):
            return pd.DataFrame()
    definition = f"{DEFINITION}; {last.tables['cka']['definition'].iloc[0]}"
    parts = []
    for item in items:
        values = _samples(item.result, last)
        value = _cka(values.mean(0, keepdims=True))[0]
        low, high = statistics.interval(values, OWN, resamples=resamples, seed=seed)
        layers = np.arange(len(value))
        columns = {"layer": layers, "value": value, "low": low, "high": high}
        parts.append(pd.DataFrame({"metric": METRIC, "step": item.step, **columns}))
    return pd.concat(parts, ignore_index=True).assign(unit="", definition=definition)


def _samples(result: Result, last: Result) -> np.ndarray:
    """Return HSIC pseudo-values (own, the last one's, both), [images, layers, 3]."""
    values = grams.joint_samples(result, last)
    first = np.arange(len(result.layers))
    second = first + len(first)
    ends = values[:, first, first], values[:, second, second]
    return np.stack([*ends, values[:, first, second]], axis=-1)


def _cka(means: np.ndarray) -> np.ndarray:
    """Return CKA from mean HSIC, [draws, layers, 3] to [draws, layers]."""
    norm = np.sqrt(np.clip(means[..., 0], 0, None) * np.clip(means[..., 1], 0, None))
    return np.divide(means[..., 2], norm, out=np.zeros_like(norm), where=norm > 0)


OWN = statistics.Statistic(_cka, min_images=statistics.CKA.min_images, largest=1.0)
