"""What one run has measured so far: fed layer by layer, asked for values at the end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from attnprobe import kernels, metrics
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import reference
from attnprobe.metrics import FeatureAccumulator, Metric
from attnprobe.tabulate import Values
from attnprobe.tensors import AttentionInputs, AttentionStats, Features
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

CHOICES = {
    "distance_unit": ("px", "tokens", "grid", "unit"),
    "entropy_unit": ("nats", "bits"),
    "prefix": ("renormalised", "excluded", "included"),
    "average": ("statistic", "attention"),
    "divergence": ("kl", "symmetric", "js"),
    "cka_tokens": ("mean", "cls", "flat"),
    "cka_estimator": ("unbiased", "biased"),
}


def check_options(options: MetricOptions) -> None:
    """Refuse an unknown convention before any work.

    Raises:
        AttnprobeError: A field of `options` has a value that it does not know.
    """
    for name, known in CHOICES.items():
        value = getattr(options, name)
        if value not in known:
            raise AttnprobeError(
                f"unknown {name.replace('_', ' ')} {value!r}", f"choose one of: {', '.join(known)}"
            )


@dataclass
class Measurement:
    """Per-image values of every metric, batch by batch.

    Attributes:
        metrics: The metrics measured.
        options: Their conventions.
        kernel: Kernel implementation.
        ids: Images measured.
        layers: Attention layers in execution order.
    """

    metrics: tuple[Metric, ...]
    options: MetricOptions
    kernel: str = "auto"
    ids: list[str] = field(default_factory=list)
    layers: list[LayerInfo] = field(default_factory=list)
    _blocks: dict[tuple[str, int], list[Tensor]] = field(default_factory=dict)
    _features: dict[str, FeatureAccumulator] = field(default_factory=dict)
    _attention: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def start(names: tuple[str, ...], options: MetricOptions, kernel: str) -> "Measurement":
        """Return an empty measurement of the named metrics.

        Raises:
            AttnprobeError: A metric, convention or kernel is unknown.
        """
        if not names:
            raise AttnprobeError("no metric was asked for", f"choose from: {metrics.names()}")
        check_options(options)
        kernels.choose(options, kernel)
        found = tuple(metrics.load(name) for name in dict.fromkeys(names))
        by_weights = [metric.name for metric in found if metric.needs == "weights"]
        if options.average == "attention" and by_weights:
            raise AttnprobeError(
                f"{by_weights[0]} has no meaning on attention averaged over images",
                "leave it out, or average the statistic",
            )
        measured = Measurement(found, options, kernel)
        measured._features = {m.name: m.start(options) for m in found if m.start}
        return measured

    @cached_property
    def _want(self) -> frozenset[str]:
        return frozenset().union(*(metric.want for metric in self.metrics))

    def on_attention(self, inputs: AttentionInputs) -> None:
        """Reduce one layer of one batch to per-image values."""
        if self.options.average == "attention":
            self._add_attention(inputs)
        elif self._want:
            want = self._want if inputs.layer.grid else self._want - {"distance", "prefix_mass"}
            stats = kernels.attention_stats(inputs, want, self.options, self.kernel)
            self._keep(stats, inputs.layer, needs="stats")
        if any(metric.needs == "weights" for metric in self.metrics):
            for weights in _weights(inputs, self.options):
                self._keep(weights, inputs.layer, needs="weights")

    def on_features(self, features: Features) -> None:
        """Hand one block output to the metrics over features."""
        for accumulator in self._features.values():
            accumulator.update(features)

    def end_batch(self, ids: tuple[str, ...], layers: list[LayerInfo]) -> None:
        """Note the images of a batch; every batch must have the same layers."""
        if self.layers and self.layers != layers:
            raise AttnprobeError(
                "the model's layers changed between batches", "use images of one size"
            )
        self.layers = list(layers)
        self.ids.extend(ids)

    def values(self) -> list[Values]:
        """Return per-image values of every metric.

        Raises:
            AttnprobeError: A value is not a finite number.
        """
        if self.options.average == "attention":
            for layer in self.layers:
                self._keep(self._mean_attention_stats(layer), layer, needs="stats")
        found = [self._values(metric) for metric in self.metrics]
        return [item for item in found if item.layers]

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return what metrics keep beside their values, by name."""
        found = {}
        for accumulator in self._features.values():
            found |= accumulator.arrays()
        return found

    def distance_maximum(self) -> dict[int, float]:
        """Return the largest possible distance of each layer that has a geometry."""
        return self._per_grid(metrics.load("distance").maximum)

    def _keep(self, record: AttentionStats | Tensor, layer: LayerInfo, *, needs: str) -> None:
        for metric in self.metrics:
            if metric.needs != needs or metric.measure is None:
                continue
            value = metric.measure(record, layer, self.options)
            if value is not None:
                self._blocks.setdefault((metric.name, layer.index), []).append(value.detach())

    def _values(self, metric: Metric) -> Values:
        if metric.needs == "features":
            layers = {0: self._features[metric.name].samples()}
        else:
            layers = {
                layer: torch.cat(blocks).cpu().numpy()
                for (name, layer), blocks in self._blocks.items()
                if name == metric.name
            }
        for layer, array in layers.items():
            _check_finite(metric.name, layer, array)
            if self._per_image(metric) and len(array) != len(self.ids):
                raise AttnprobeError(
                    f"{metric.name} of layer {layer} has {len(array)} values for "
                    f"{len(self.ids)} images",
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
        words = metric.definition(self.options)
        if metric.needs == "stats" and self.options.average == "attention":
            return f"of the attention averaged over images first; {words}"
        return words

    def _per_image(self, metric: Metric) -> bool:
        if metric.needs == "features":
            return self.options.cka_estimator == "unbiased"
        return self.options.average == "statistic"

    def _per_grid(self, value: Callable[..., float] | None) -> dict[int, float]:
        if value is None:
            return {}
        return {layer.index: value(layer.grid, self.options) for layer in self.layers if layer.grid}

    def _add_attention(self, inputs: AttentionInputs) -> None:
        """Sum a layer's probabilities over images, float64 [windows, heads, queries, keys]."""
        index = inputs.layer.index
        for scores in reference.logits_by_image(inputs):
            self._attention[index] = self._attention.get(index, 0) + scores.softmax(-1)

    def _mean_attention_stats(self, layer: LayerInfo) -> AttentionStats:
        """Return the statistics of the image-mean attention, with one row for all images."""
        mean = self._attention[layer.index] / len(self.ids)
        grid, want = layer.grid or TokenGrid(1, mean.shape[-1], (1, 1)), self._want
        stats = reference.stats_of(
            mean.log(),
            grid,
            want if layer.grid else want - {"distance"},
            prefix=self.options.prefix,
            divergence="js" if self.options.divergence == "js" else "kl",
        )
        return AttentionStats(*(None if x is None else x.unsqueeze(0).float() for x in stats))


def _weights(inputs: AttentionInputs, options: MetricOptions) -> Iterator[Tensor]:
    """Yield probabilities of patch rows, float64 [1, windows, heads, n, keys], image by image."""
    for scores in reference.logits_by_image(inputs):
        weights, _ = reference.patch_rows(scores, inputs.grid, options.prefix)
        yield weights.unsqueeze(0)


def _check_finite(metric: str, layer: int, array: np.ndarray) -> None:
    broken = np.argwhere(~np.isfinite(array))
    if len(broken):
        raise AttnprobeError(
            f"{metric} of layer {layer} is not a finite number for {len({*broken[:, 0]})} images",
            "check the weights with `attnprobe inspect`, and use --precision fp32",
        )
