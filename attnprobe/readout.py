"""From everything that was measured to the values of each metric, ready for tables."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attnprobe import metrics
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import reference
from attnprobe.measuring import not_finite
from attnprobe.metrics import Metric
from attnprobe.parts import SEPARATOR, Arrays, Part, by_layer
from attnprobe.tabulate import Values
from attnprobe.tensors import AttentionStats
from attnprobe.types import MASKED, LayerInfo, MetricOptions, TokenGrid


@dataclass(frozen=True)
class Readout:
    """The values of a finished measurement.

    Attributes:
        metrics: The metrics measured.
        options: Their conventions.
        part: All that was measured.
        masked: What was hidden of the images, in words; nothing for whole images.
    """

    metrics: tuple[Metric, ...]
    options: MetricOptions
    part: Part
    masked: str = ""

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Attention layers in execution order."""
        return self.part.layers

    def values(self) -> list[Values]:
        """Return per-image values of every metric.

        Raises:
            AttnprobeError: A value is not a finite number.
        """
        of_means = self._of_mean_attention() if self.options.average == "attention" else {}
        part = replace(self.part, rows={**self.part.rows, **of_means})
        found = [self._values(metric, part) for metric in self.metrics]
        return [item for item in found if item.layers]

    def arrays(self) -> dict[str, Arrays]:
        """Return what metrics keep beside their values, by name."""
        found: dict[str, Arrays] = {}
        groups = [group for _, group in sorted(self.part.groups.items())]
        for metric in self.metrics:
            if metric.features:
                start = f"{metric.name}{SEPARATOR}"
                held = [
                    {name.removeprefix(start): x for name, x in group.items()} for group in groups
                ]
                found |= metric.features.arrays(held)
        return found

    def distance_maximum(self) -> dict[int, float]:
        """Return the largest possible distance of each layer that has a geometry."""
        return self._per_grid(metrics.load("distance").maximum)

    def _values(self, metric: Metric, part: Part) -> Values:
        if metric.features:
            layers = {0: group_samples(metric, part)}
        else:
            layers = by_layer(part.rows, metric.name)
        for layer, array in layers.items():
            if not np.isfinite(array).all():
                raise not_finite(metric.name, layer, array)
            if self._per_image(metric) and len(array) != len(part.numbers):
                raise AttnprobeError(
                    f"{metric.name} of layer {layer} has {len(array)} values for "
                    f"{len(part.numbers)} images",
                    "report this as a defect",
                )
        return Values(
            metric=metric.name,
            axes=metric.axes,
            unit=metric.unit(self.options),
            definition=self._definition(metric),
            layers=layers,
            uniform=self._per_grid(metric.uniform),
            statistic=metric.statistic,
            per_image=self._per_image(metric),
            tokens=next((layer.grid.prefix_names for layer in self.layers if layer.grid), ()),
        )

    def _definition(self, metric: Metric) -> str:
        words, step = metric.definition(self.options), self.options.query_step
        if step > 1 and not metric.features:
            words = f"over one in {step} patch queries; {words}"
        words += f"{MASKED}{self.masked}" if self.masked else ""
        if metric.needs == "stats" and self.options.average == "attention":
            return f"of the attention averaged over images first; {words}"
        return words

    def _per_image(self, metric: Metric) -> bool:
        if metric.features:
            return self.options.cka_estimator == "unbiased"
        return self.options.average == "statistic"

    def _per_grid(self, value: Callable[..., float] | None) -> dict[int, float]:
        if value is None:
            return {}
        return {layer.index: value(layer.grid, self.options) for layer in self.layers if layer.grid}

    def _of_mean_attention(self) -> Arrays:
        """Return the values of the image-mean attention, with one row for all images."""
        found = {}
        want = frozenset().union(*(metric.want for metric in self.metrics))
        for layer in self.layers:
            stats = _stats_of_mean(self._mean(layer), layer, want, self.options)
            for metric in self.metrics:
                if metric.needs == "stats" and metric.measure:
                    value = metric.measure(stats, layer, self.options)
                    if value is not None:
                        found[f"{metric.name}{SEPARATOR}{layer.index}"] = value.numpy()
        return found

    def _mean(self, layer: LayerInfo) -> Tensor:
        return torch.from_numpy(self.part.sums[str(layer.index)]) / len(self.part.numbers)


def _stats_of_mean(
    mean: Tensor, layer: LayerInfo, want: frozenset[str], options: MetricOptions
) -> AttentionStats:
    """Return the statistics of one layer's mean attention [windows, heads, queries, keys]."""
    grid = layer.grid or TokenGrid(1, mean.shape[-1], (1, 1))
    stats = reference.stats_of(
        mean.log(),
        grid,
        want if layer.grid else want - {"distance"},
        prefix=options.prefix,
        divergence="js" if options.divergence == "js" else "kl",
        step=options.query_step,
        present=None if grid.whole else torch.from_numpy(grid.present()),
    )
    return AttentionStats(*(None if x is None else x.unsqueeze(0).float() for x in stats))


def group_samples(metric: Metric, part: Part) -> np.ndarray:
    """Return the values of a metric over features, [images, ...], in the order of the images.

    Images whose mini-batch was too small to say anything get the mean of the others, which
    changes no estimate.

    Raises:
        AttnprobeError: No mini-batch was large enough.
    """
    held = [group for _, group in sorted(part.groups.items())]
    name = f"{metric.name}{SEPARATOR}samples"
    numbers = [group["numbers"] for group in held if name in group]
    samples = [group[name] for group in held if name in group]
    smallest = metric.features.smallest if metric.features else 0
    told = [x for x in samples if len(x) >= smallest]
    if not told:
        raise AttnprobeError(
            f"{metric.name.upper()} needs at least {smallest} images, got {len(part.numbers)}",
            f"give more images, or leave {metric.name} out",
        )
    mean = np.concatenate(told).mean(0)
    found = np.empty((len(part.numbers), *mean.shape))
    found[:] = mean
    for at, x in zip(numbers, samples, strict=True):
        if len(x) >= smallest:
            found[np.searchsorted(part.numbers, at)] = x
    if silent := len(part.numbers) - sum(map(len, told)):
        warnings.warn(
            f"{silent} images do not count in {metric.name}: most of their mini-batch could not "
            "be read",
            stacklevel=2,
        )
    return found


def kernel_names(kernels: Sequence[str]) -> str:
    """Return the kernels that ran, each once, as provenance states them.

    >>> kernel_names(["blocked", "fused", "blocked"])
    'blocked, fused'
    """
    return ", ".join(sorted(set(kernels)))
