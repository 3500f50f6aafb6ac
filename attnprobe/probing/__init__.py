"""Attention during training: a probe that any loop can call.

    probe = AttentionProbe(model, out="runs/mine/probe", every=500)
    for step, batch in enumerate(loader, start=1):
        ...
        probe(step)

Every measurement is a result folder of its own, which the commands and functions over results
(track, compare, report) read like any other.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
from torch import distributed, nn

from attnprobe.attention import READERS, discover
from attnprobe.errors import AttnprobeError
from attnprobe.measuring import Measurement
from attnprobe.probing import adapters
from attnprobe.probing.folders import ProbeFolders
from attnprobe.probing.snapshots import decoded, described, snapshot
from attnprobe.probing.undisturbed import unwrapped
from attnprobe.results import Result
from attnprobe.settings import AnalysisConfig, configure
from attnprobe.types import CheckpointSpec, MetricOptions

__all__ = ["AttentionProbe", "suggested_interval"]

METRICS = ("distance", "entropy", "head_kl")
RESAMPLES = 200  # of an interval; tracks draw their own
COST = 50  # images trained on between two probes, for each image probed
COLUMNS = ["step", "metric", "layer", "value", "low", "high"]


def suggested_interval(images: int, batch: int, steps_per_epoch: int = 1) -> int:
    """Return after how many updates to probe again so that it costs under 2 % of the time.

    Probing an image takes a forward pass and its statistics: 0.3 to 0.9 of what an update takes
    for each of its images (ViT-Ti/4 on a CPU: supervised 0.35, SimMIM 0.6, MoCo v3 0.3, and MAE,
    whose encoder sees a quarter of the patches, 0.9). A probe for every 50 images trained on, for
    each image probed, therefore costs 0.6 to 1.8 %; it is made once an epoch if that is less often.

    Args:
        images: Images of a probe.
        batch: Images of an update.
        steps_per_epoch: Updates of an epoch, where there are epochs.

    >>> suggested_interval(64, 128), suggested_interval(64, 128, steps_per_epoch=390)
    (25, 390)
    """
    return max(steps_per_epoch, math.ceil(COST * images / batch))


class AttentionProbe:
    """Measures the attention of a model while it is trained, on images that stay the same.

    The training goes on as if there were no probe: flags, gradients, buffers, random states and
    hooks are as they were, and the model stays where it is. Call it after every update; see
    `lightning` and `transformers` for trainers that call it themselves.

    Args:
        model: The model that is trained, in whatever shell (compiled, data-parallel); its
            attention is read as it is at each call.
        images: Anything `datasets.open_set` takes, or a preprocessed tensor [n, 3, h, w]; read
            once.
        out: Folder that gets one result folder a measurement, `step-00000123`.
        every: Updates between two measurements; see `suggested_interval`.
        metrics: Names of the metrics.
        limit: Images, at most, evenly spaced over the source.
        spec: How to preprocess, where the model itself does not tell.
        seed: Seed of the intervals.
        encoder: The part of the model that takes images, as the name of its attribute (dots
            go deeper) or as a function of the unwrapped model; by default the model itself.
        options: Conventions of the metrics.
        resamples: Bootstrap draws of each interval.
        batch_size: Images of one forward pass; 0 chooses by device.
        precision: Of the forward pass, as in `AnalysisConfig`.
        everywhere: Measure on every process of a distributed training, each with an `out` of
            its own, not on the main process alone.

    Raises:
        AttnprobeError: A metric or option is unknown, or `every` is less than 1.
        CaptureError: The model has no attention that can be read.
        ImagesError: The images cannot be used.
        OutputError: `out` holds probes of other images or options.

    Example:
        >>> import tempfile, timm, torch
        >>> model = timm.create_model("test_vit", pretrained=False)
        >>> out = tempfile.mkdtemp()
        >>> probe = AttentionProbe(model, torch.randn(8, 3, 160, 160), out=out, every=10)
        >>> probe(9) is None, probe(10).model["step"]
        (True, 10)
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any = "bundled",
        *,
        out: str | Path,
        every: int = 500,
        metrics: Iterable[str] = METRICS,
        limit: int = 64,
        spec: CheckpointSpec | None = None,
        seed: int = 0,
        encoder: str | Callable[[nn.Module], nn.Module] | None = None,
        options: MetricOptions | None = None,
        resamples: int = RESAMPLES,
        batch_size: int = 0,
        precision: str = "auto",
        everywhere: bool = False,
    ) -> None:
        if every < 1:
            raise AttnprobeError(f"a probe every {every} updates is impossible", "give 1 or more")
        self.every, self.everywhere = every, everywhere
        self._model = model
        self._encoder = attrgetter(encoder) if isinstance(encoder, str) else encoder
        discover(self._encoded(), READERS)
        told = spec or described(self._encoded(), images)
        self._spec = replace(told, sha256="")  # the weights are others at every step
        settings = AnalysisConfig(
            options=options or MetricOptions(),
            limit=limit,
            seed=seed,
            resamples=resamples,
            batch_size=batch_size,
            precision=precision,
        )
        self._config = configure(settings, metrics, {})
        Measurement.start(self._config.metrics, self._config.options, self._config.kernel)
        self._images = decoded(images, self._spec, limit)
        self._folders = ProbeFolders(Path(out), self._images.sha256, self._config)
        self._last: Result | None = None
        self._reached = math.inf

    def __call__(
        self, step: int, epoch: float | None = None, *, force: bool = False
    ) -> Result | None:
        """Measure if it is time to, and save what was measured.

        A step before the last one means that training was taken up again from there: later
        measurements are removed, those up to this step are kept. So does the first call of a
        new probe.

        Args:
            step: Updates done.
            epoch: Passes over the data done, if that is known; parts of one count.
            force: Measure at any step, e.g. before the first and after the last update.

        Returns:
            The result, with `step` and `epoch` in its model card; None if nothing was measured.

        Raises:
            AttnprobeError: The attention cannot be read, or is not finite.
            OutputError: The result cannot be written.
        """
        if not (self.everywhere or _is_main()):
            return None
        if step < self._reached:
            self._folders.rewind(step)
        self._reached = step
        if self._folders.has(step) or not (force or step % self.every == 0):
            return None
        result = snapshot(self._encoded(), self._images, self._spec, self._config)
        self._last = self._folders.put(result, step, epoch)
        return self._last

    def history(self) -> pd.DataFrame:
        """Return the layer means of every measurement: step, metric, layer, value, low, high."""
        return self._folders.history(COLUMNS)

    def results(self) -> list[Result]:
        """Return every measurement, ascending by step; what `attnprobe.track` takes."""
        return self._folders.results()

    @property
    def summary(self) -> dict[str, float]:
        """The layer means of the last measurement under names for loggers, "distance/layer00"."""
        if self._last is None:
            return {}
        means = self._last.tables["layer_means"]
        return {
            f"{metric}/layer{layer:02d}": float(value)
            for metric, layer, value in means[["metric", "layer", "value"]].itertuples(index=False)
        }

    def lightning(self) -> Any:
        """Return a callback for a Lightning trainer: by optimiser step, and when fitting ends.

        Raises:
            AttnprobeError: Lightning is not installed.
        """
        return adapters.lightning(self)

    def transformers(self) -> Any:
        """Return a callback for a transformers trainer: by update, and when training ends.

        Raises:
            AttnprobeError: transformers is not installed.
        """
        return adapters.transformers(self)

    def _encoded(self) -> nn.Module:
        """Return the part that is measured, out of its shells."""
        model = unwrapped(self._model)
        return unwrapped(self._encoder(model)) if self._encoder else model


def _is_main() -> bool:
    """Whether this is the only process of the training, or its first."""
    there = distributed.is_available() and distributed.is_initialized()
    return not there or distributed.get_rank() == 0
