"""What one forward pass gives: fed layer by layer, taken as a batch of per-image values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from attnprobe import kernels, metrics
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import reference
from attnprobe.metrics import Metric
from attnprobe.parts import SEPARATOR, Arrays
from attnprobe.tensors import AttentionInputs, AttentionStats, Features, every
from attnprobe.types import LayerInfo, MetricOptions

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
    if options.query_step < 1:
        raise AttnprobeError(
            f"every {options.query_step}th query is impossible", "give a query step of 1 or more"
        )


@dataclass
class Batch:
    """What one forward pass gave.

    Attributes:
        rows: Values an image, "metric|layer": [images, ...].
        sums: Sums over its images, "layer": float64 [...].
        features: Features an image, "metric|layer": [images, channels], still on the device.
        maps: Attention maps by number of the image.
        layers: The attention layers in execution order.
        kernels: The kernel that measured each layer.
    """

    rows: Arrays = field(default_factory=dict)
    sums: Arrays = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[int, Arrays] = field(default_factory=dict)
    layers: tuple[LayerInfo, ...] = ()
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """What the layers of a pass have reported, still on the device."""

    rows: dict[str, list[Tensor]]
    sums: dict[str, Tensor]
    features: dict[str, Tensor]
    kernels: list[str]

    def close_to(self, other: "Held", tolerance: float) -> bool:
        """Whether another pass reported the same, up to a part of the largest value."""
        pairs = [pair for n, x in self.rows.items() for pair in zip(x, other.rows[n], strict=True)]
        pairs += [(x, other.features[name]) for name, x in self.features.items()]
        pairs += [(x, other.sums[name]) for name, x in self.sums.items()]
        return all(
            bool((x - y).abs().max() <= tolerance * y.abs().max().clamp(min=tolerance))
            for x, y in pairs
        )


@dataclass
class Measurement:
    """Reduces the layers of a pass to values per image while the pass runs.

    Attributes:
        metrics: The metrics measured.
        options: Their conventions.
        kernel: Kernel implementation that was asked for.
    """

    metrics: tuple[Metric, ...]
    options: MetricOptions
    kernel: str = "auto"
    _rows: dict[str, list[Tensor]] = field(default_factory=dict)
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _features: dict[str, Tensor] = field(default_factory=dict)
    _kernels: list[str] = field(default_factory=list)

    @staticmethod
    def start(
        names: tuple[str, ...], options: MetricOptions, kernel: str, own: Sequence[Metric] = ()
    ) -> "Measurement":
        """Return an empty measurement of the named metrics, some of the user's own among them.

        Raises:
            AttnprobeError: A metric, convention or kernel is unknown.
        """
        if not names:
            raise AttnprobeError("no metric was asked for", f"choose from: {metrics.names()}")
        check_options(options)
        kernels.choose(options, kernel)
        found = tuple(metrics.load(name, own) for name in dict.fromkeys(names))
        by_weights = [metric.name for metric in found if metric.needs == "weights"]
        if options.average == "attention" and by_weights:
            raise AttnprobeError(
                f"{by_weights[0]} has no meaning on attention averaged over images",
                "leave it out, or average the statistic",
            )
        for metric in found:
            if metric.features:
                metric.features.check(options)
        return Measurement(found, options, kernel)

    @cached_property
    def want(self) -> frozenset[str]:
        """The kernel statistics that the metrics need."""
        return frozenset().union(*(metric.want for metric in self.metrics))

    def on_attention(self, inputs: AttentionInputs) -> None:
        """Reduce one layer of one batch to per-image values."""
        if self.options.average == "attention":
            self._add_attention(inputs)
            self._kernels.append("reference")
        elif self.want:
            want = self.want if inputs.layer.grid else self.want - {"distance", "prefix_mass"}
            inputs = replace(inputs, step=self.options.query_step)
            stats = kernels.attention_stats(inputs, want, self.options, self.kernel)
            self._keep(stats, inputs.layer, needs="stats")
            self._kernels.append(kernels.choose(self.options, self.kernel, inputs))
        if any(metric.needs == "weights" for metric in self.metrics):
            for weights in _weights(inputs, self.options):
                self._keep(weights, inputs.layer, needs="weights")

    def on_features(self, features: Features) -> None:
        """Keep of one block output what the metrics over features need."""
        for metric in self.metrics:
            if metric.features:
                name = f"{metric.name}{SEPARATOR}{features.layer.index}"
                self._features[name] = metric.features.pool(features, self.options)

    def take(self, layers: list[LayerInfo], maps: dict[int, Arrays] | None = None) -> Batch:
        """Return what the pass that just ended gave, and be ready for the next.

        Args:
            layers: The layers that reported.
            maps: Attention maps that were taken beside it, by number of the image.

        Raises:
            AttnprobeError: A value is not a finite number.
        """
        rows = {name: self._rows_of(name, held) for name, held in self._rows.items()}
        for name, held in self._features.items():
            if not bool(held.isfinite().all()):
                metric, _, layer = name.partition(SEPARATOR)
                raise not_finite(metric, layer, held.cpu().numpy())
        sums = {name: held.cpu().numpy() for name, held in self._sums.items()}
        batch = Batch(
            rows, sums, self._features, maps or {}, tuple(layers), kernels=tuple(self._kernels)
        )
        self.drop()
        return batch

    def hold(self) -> Held:
        """Return what the pass reported, and be ready for the next."""
        held = Held(self._rows, self._sums, self._features, self._kernels)
        self.drop()
        return held

    def restore(self, held: Held) -> None:
        """Have reported what a pass reported whose tensors were filled anew."""
        features = {name: x.clone() for name, x in held.features.items()}  # they wait
        self._rows, self._sums = dict(held.rows), dict(held.sums)
        self._features, self._kernels = features, list(held.kernels)

    def drop(self) -> None:
        """Forget what a pass gave that did not end well."""
        self._rows, self._sums, self._features, self._kernels = {}, {}, {}, []

    def _rows_of(self, name: str, held: list[Tensor]) -> np.ndarray:
        metric, _, layer = name.partition(SEPARATOR)
        found = np.concatenate([x.cpu().numpy() for x in held])
        if not np.isfinite(found).all():
            raise not_finite(metric, layer, found)
        return found

    def _keep(self, record: AttentionStats | Tensor, layer: LayerInfo, *, needs: str) -> None:
        for metric in self.metrics:
            if metric.needs != needs or metric.measure is None:
                continue
            value = metric.measure(record, layer, self.options)
            if value is not None:
                name = f"{metric.name}{SEPARATOR}{layer.index}"
                self._rows.setdefault(name, []).append(value.detach())

    def _add_attention(self, inputs: AttentionInputs) -> None:
        """Sum a layer's probabilities over images, float64 [windows, heads, queries, keys]."""
        name = str(inputs.layer.index)
        for scores in reference.logits_by_image(inputs):
            weights = scores.softmax(-1)
            self._sums[name] = self._sums[name] + weights if name in self._sums else weights


def not_finite(metric: str, layer: str | int, values: np.ndarray) -> AttnprobeError:
    """Return what to raise at values that are no numbers."""
    images = len({*np.argwhere(~np.isfinite(values))[:, 0].tolist()})
    return AttnprobeError(
        f"{metric} of layer {layer} is not a finite number for {images} images",
        "check the weights with `attnprobe inspect`, and use --precision fp32",
    )


def _weights(inputs: AttentionInputs, options: MetricOptions) -> Iterator[Tensor]:
    """Yield probabilities of patch rows, float64 [1, windows, heads, n, keys], image by image.

    Raises:
        AttnprobeError: Some of the tokens are absent.
    """
    if inputs.present is not None:
        raise AttnprobeError(
            f"some tokens of {inputs.layer.name} are absent (padding, or dropped), and metrics "
            "over whole attention rows do not know which",
            "leave the metric out, or use an input size that windows tile, unmasked",
        )
    for scores in reference.logits_by_image(inputs):
        weights, _ = reference.patch_rows(scores, inputs.grid, options.prefix)
        queries = every(options.query_step, inputs.grid.patches)
        yield weights[..., queries, :].unsqueeze(0)
