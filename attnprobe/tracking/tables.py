"""The tables of a track: values by step, what changed in all, and since when nothing did.

A change is last minus first on each image, so that what images have in common cancels: its limits
are those of the BCa bootstrap over images, its p-value is that of the paired permutation test, and
q controls the false discovery rate over the layers of one metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from attnprobe import samples, significance, statistics
from attnprobe.results import Result

MEANS = ["value", "low", "high", "head_min", "head_max", "head_sd", "uniform", "fraction"]
COLUMNS = ["metric", "step", "layer", *MEANS, "unit", "definition"]
TESTED = ["low", "high", "p", "q"]
ENDS = ["value_first", "value_last", "change"]
CHANGES = ["metric", "layer", *ENDS, *TESTED, "unit", "definition"]
HEADS = ["metric", "step", "layer", "head", "value"]
# one model measured twice repeats to this part of its values; what is less is no change
RESOLUTION = 2e-5
CHANGE = "last minus first checkpoint, mean over images of the paired difference of layer means"
SETTLED = (
    "the first checkpoint from which on, to the last, every layer mean lies within the 95 % "
    "interval of the last one; none where only the last checkpoint itself does"
)


@dataclass(frozen=True)
class Reduced:
    """What a track needs of one checkpoint.

    Attributes:
        result: Its result without per-image values; of the arrays, the Gram matrices stay.
        means: Per-image layer means by metric and layer, [images].
        step: Where it stands.
    """

    result: Result
    means: dict[str, dict[int, np.ndarray]]
    step: float = 0


def reduce(result: Result) -> Reduced:
    """Keep of a result what fits in memory many times."""
    held = [metric for metric in _metrics(result) if _is_sampled(result, metric)]
    kept = {name: parts for name, parts in result.arrays.items() if name == "grams"}
    return Reduced(
        result=replace(result, samples={}, arrays=kept),
        means={metric: samples.by_layer(result, metric) for metric in held},
    )


def _is_sampled(result: Result, metric: str) -> bool:
    """Whether there are per-image values; a lone head diverges from no other."""
    if not samples.has(result, metric):
        return False
    frame = result.samples[metric]
    return "head_b" not in frame or bool((frame["head_a"] != frame["head_b"]).any())


def history(items: Sequence[Reduced]) -> pd.DataFrame:
    """Return the layer means of every checkpoint under each other."""
    parts: list[pd.DataFrame] = []
    for metric in _metrics(items[0].result):
        for item in items:
            means = item.result.tables["layer_means"]
            part = means.loc[means["metric"] == metric].sort_values("layer")
            parts.append(part.assign(step=item.step).reindex(columns=COLUMNS))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def heads(items: Sequence[Reduced]) -> pd.DataFrame:
    """Return one row a metric, checkpoint, layer and head."""
    parts: list[pd.DataFrame] = []
    for item in items:
        tables = item.result.tables
        for metric in _metrics(item.result):
            table = tables.get(f"{metric}_mean", tables.get(metric))
            if table is None or "head" not in table:
                continue
            # a head's prefix mass adds its tokens up
            sums = table.groupby(["layer", "head"], as_index=False).agg({"value": "sum"})
            parts.append(sums.assign(metric=metric, step=item.step).reindex(columns=HEADS))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=HEADS)


def _metrics(result: Result) -> list[str]:
    means = result.tables["layer_means"]
    return [str(metric) for metric in means["metric"].unique()] if len(means) else []


def changes(first: Reduced, last: Reduced, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return one row a metric and layer: the change from the first to the last checkpoint."""
    parts: list[pd.DataFrame] = []
    for metric in _metrics(first.result):
        ends = [_of(item.result, metric) for item in (first, last)]
        layers = ends[0].index.intersection(ends[1].index)
        before, after = (end.loc[layers, "value"].to_numpy(dtype=float) for end in ends)
        values = {"value_first": before, "value_last": after, "change": after - before}
        means = [item.means.get(metric, {}) for item in (first, last)]
        tested = _paired(*means, resamples=resamples, seed=seed).reindex(layers)
        texts = ends[1].loc[layers, ["unit", "definition"]]
        part = pd.concat([pd.DataFrame(values, index=layers), tested, texts], axis=1)
        parts.append(part.assign(metric=metric).reset_index(names="layer"))
    if not parts:
        return pd.DataFrame(columns=CHANGES)
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(definition=f"{CHANGE}; " + whole["definition"]).reindex(columns=CHANGES)


def _of(result: Result, metric: str) -> pd.DataFrame:
    """Return the measured layer means of one metric by layer."""
    means = result.tables["layer_means"]
    rows = means.loc[(means["metric"] == metric) & means["value"].notna()]
    return rows.set_index("layer").sort_index()


def _paired(
    first: dict[int, np.ndarray], last: dict[int, np.ndarray], *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return limits and p-values by layer; none for layers without per-image values."""
    layers = [layer for layer in first if layer in last]
    if not layers:
        return pd.DataFrame(columns=TESTED, dtype=float)
    before, after = (np.stack([side[n] for n in layers], axis=1) for side in (first, last))
    gap, size = after - before, np.maximum(np.abs(before), np.abs(after))
    gap = np.where(np.abs(gap) <= RESOLUTION * np.maximum(size, size.mean()), 0.0, gap)
    low, high = statistics.interval(gap, resamples=resamples, seed=seed)
    p = significance.sign_flip(gap, seed=seed)
    columns = dict(zip(TESTED, (low, high, p, significance.benjamini_hochberg(p)), strict=True))
    return pd.DataFrame(columns, index=pd.Index(layers))


def settled(items: Sequence[Reduced]) -> pd.DataFrame:
    """Return one row a metric and layer: the step at which it had settled, if before the last."""
    whole = history(items)
    columns = ["metric", "layer", "step", "value", "low", "high", "unit"]
    rows = []
    for _, part in whole.groupby(["metric", "layer"], sort=False):
        last = part.iloc[-1]
        if pd.isna(last["low"]) or pd.isna(last["high"]) or pd.isna(last["value"]):
            continue
        inside = part["value"].between(last["low"], last["high"]).to_numpy()[:-1]
        outside = np.flatnonzero(~inside)
        since = int(outside[-1]) + 1 if len(outside) else 0
        step = part["step"].iloc[since] if since < len(inside) else np.nan
        rows.append({"step": step} | {name: last[name] for name in columns if name != "step"})
    table = pd.DataFrame(rows, columns=columns).assign(definition=SETTLED)
    kind = "Int64" if all(isinstance(item.step, int) for item in items) else "float64"
    return table.astype({"step": kind})
