"""A metric of the user's own, checked before the work and while it measures."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from attnprobe import plugins
from attnprobe.errors import AttnprobeError
from attnprobe.metrics import Metric, OfFeatures
from attnprobe.statistics import MEAN
from attnprobe.tensors import AttentionStats
from attnprobe.types import LayerInfo, MetricOptions

HEADS = (("layer", "head"), ("layer", "head_a", "head_b"), ("layer", "head", "token"))
AXES = {"stats": HEADS, "weights": HEADS, "features": (("layer_a", "layer_b"),)}
TAKEN = {"images", "layers", "layer_means"}  # tables of every result


def checked(metric: Metric) -> Metric:
    """Return a metric whose values are checked as they come.

    Raises:
        AttnprobeError: It takes a name that is taken, or lacks what its kind needs.
    """
    for wrong, remedy in (*_wrong_name(metric), *_wrong_kind(metric), *_wrong_words(metric)):
        if wrong:
            raise AttnprobeError(f"the metric {metric.name!r} cannot be measured: {wrong}", remedy)
    return metric if metric.measure is None else replace(metric, measure=_watched(metric))


def _wrong_name(metric: Metric) -> list[tuple[str, str]]:
    known = plugins.names("attnprobe.metrics")
    name = str(metric.name)
    taken = name in {*known, *TAKEN, *(f"{other}_mean" for other in known)}
    plain = re.fullmatch(r"[a-z][a-z0-9_]*", name)
    return [
        ("attnprobe has a table of that name" if taken else "", "give it another name"),
        ("its name names its files" if not plain else "", "use small letters, digits and _"),
    ]


def _wrong_kind(metric: Metric) -> list[tuple[str, str]]:
    if metric.needs not in AXES:
        return [(f"needs={metric.needs!r} is unknown", f"choose one of: {', '.join(AXES)}")]
    axes, known = AXES[metric.needs], set(AttentionStats._fields)
    want = metric.needs != "stats" or (metric.want and metric.want <= known)
    over_features = metric.needs == "features"
    made = isinstance(metric.features, OfFeatures) if over_features else callable(metric.measure)
    mean = over_features or metric.statistic is MEAN
    return [
        (f"its axes are {metric.axes}" if metric.axes not in axes else "", f"use one of: {axes}"),
        ("" if want else f"it wants {sorted(metric.want)}", f"want some of: {sorted(known)}"),
        ("" if made else "nothing measures it", "give measure=, or features= for needs=features"),
        ("" if mean else "its statistic is no mean", "leave statistic= out"),
    ]


def _wrong_words(metric: Metric) -> list[tuple[str, str]]:
    options = MetricOptions()
    said = isinstance(metric.unit(options), str) and isinstance(metric.definition(options), str)
    return [("" if said else "unit or definition give no text", "return a str from both")]


def _watched(metric: Metric) -> Callable[[Any, LayerInfo, MetricOptions], Tensor | None]:
    """Return its `measure`, which names the metric and the layer where something is wrong."""
    inner = metric.measure

    def measure(record: Any, layer: LayerInfo, options: MetricOptions) -> Tensor | None:
        try:
            value = inner(record, layer, options) if inner else None
        except AttnprobeError:
            raise
        except Exception as error:  # it is the user's code; say where it failed
            if "memory" in str(error):  # the pass is done again with fewer images
                raise
            raise AttnprobeError(
                f"the metric {metric.name!r} failed on {layer.name} with "
                f"{type(error).__name__}: {error}",
                "see what `measure` makes of one layer",
            ) from error
        _check(value, metric, layer)
        return value

    return measure


def _check(value: Any, metric: Metric, layer: LayerInfo) -> None:
    """Refuse what is no value an image and a head."""
    if value is None:
        return
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    heads = (layer.heads,) * (2 if "head_b" in metric.axes else 1)
    fits = shape and len(shape) == len(metric.axes) and shape[1 : 1 + len(heads)] == heads
    if not fits:
        raise AttnprobeError(
            f"the metric {metric.name!r} gave {type(value).__name__} {shape or ''} for "
            f"{layer.name} of {layer.heads} heads",
            f"return a tensor [images, {', '.join(metric.axes[1:])}]",
        )
