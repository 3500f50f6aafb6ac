"""analyze(model, images) -> Result: the only loop over data.

Layers report while the forward pass runs, are reduced to per-image numbers at once, and the
numbers become tables with intervals at the end.
"""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnprobe import checkpoints, kernels, metrics, tabulate
from attnprobe.capture import capture
from attnprobe.checkpoints import LoadedModel
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.errors import AttnprobeError, ImagesError
from attnprobe.images import ImageSet, open_images
from attnprobe.measuring import Measurement
from attnprobe.results import Result
from attnprobe.types import MetricOptions, Provenance

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AnalysisConfig:
    """How to measure; saved beside the result and accepted back.

    Attributes:
        metrics: Names of the metrics.
        options: Their conventions.
        batch_size: Images in one forward pass; 0 chooses by device.
        limit: Largest number of images, evenly spaced over the set; None for all.
        device: auto, cpu, cuda, cuda:1, ...
        precision: auto, fp32, bf16 or fp16 for the forward pass; measuring is always fp32.
        kernel: auto, blocked or reference.
        resamples: Bootstrap draws.
        seed: Seed of the bootstrap.
        workers: Processes that decode images.
    """

    metrics: tuple[str, ...] = metrics.DEFAULT
    options: MetricOptions = MetricOptions()
    batch_size: int = 0
    limit: int | None = None
    device: str = "auto"
    precision: str = "auto"
    kernel: str = "auto"
    resamples: int = 2000
    seed: int = 0
    workers: int = 0

    def flat(self) -> dict[str, Any]:
        """Return every setting by name, conventions included; what `--config` reads.

        >>> AnalysisConfig().flat()["distance_unit"]
        'px'
        """
        settings = {**asdict(self), **asdict(self.options), "metrics": list(self.metrics)}
        del settings["options"]
        return settings


def analyze(
    model: LoadedModel | nn.Module | str | Path,
    images: Any = "bundled",
    metrics: Iterable[str] | None = None,
    *,
    config: AnalysisConfig | None = None,
    progress: Progress | None = None,
    command: str = "python",
    **changes: Any,
) -> Result:
    """Measure every attention head of a model on a set of images.

    Args:
        model: A loaded model, a timm-style module, or anything `load` takes.
        images: Anything `open_images` takes, or a preprocessed tensor [n, 3, h, w].
        metrics: Names of the metrics; all of `attnprobe list metrics` by default.
        config: How to measure.
        progress: Called with images done and images in all after every batch.
        command: What to record as the command.
        **changes: Fields of `AnalysisConfig` to set, e.g. `batch_size=4`.

    Returns:
        Tables with 95 % intervals over images, per-image samples and provenance.

    Raises:
        AttnprobeError: The model, the images or the options cannot be used.

    Example:
        >>> import attnprobe, torch
        >>> model = attnprobe.load("timm:test_vit?pretrained=0")
        >>> result = attnprobe.analyze(model, torch.randn(8, 3, 160, 160), metrics=["entropy"])
        >>> len(result.tables["entropy"])  # 6 layers of 2 heads
        12
    """
    config = replace(config or AnalysisConfig(), **changes)
    if metrics is not None:
        config = replace(config, metrics=tuple(metrics))
    started = time.perf_counter()
    loaded = _loaded(model)
    device, dtype = pick_device(config.device), _precision(config.precision)
    source = open_images(images, spec=loaded.spec, limit=config.limit)
    measured = _measure(loaded.module.to(device), source, config, dtype=dtype, progress=progress)
    provenance = Provenance(
        weights_sha256=loaded.spec.sha256,
        images_sha256=source.sha256,
        images=len(measured.ids),
        skipped=tuple(source.skipped),
        transform=dict(source.transform),
        versions=dict(_versions()),
        device=_device_name(device),
        precision="fp32" if dtype is None else str(dtype).removeprefix("torch."),
        kernel=kernels.choose(config.options, config.kernel),
        seed=config.seed,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
    )
    return _result(loaded, measured, config, provenance)


def _measure(
    module: nn.Module,
    source: ImageSet,
    config: AnalysisConfig,
    *,
    dtype: torch.dtype | None,
    progress: Progress | None,
) -> Measurement:
    """Run the forward passes; the layers report while they run."""
    device = next(module.parameters()).device
    measured = Measurement.start(config.metrics, config.options, kernel=config.kernel)
    batch_size = config.batch_size or (8 if device.type == "cpu" else 64)
    with (
        torch.inference_mode(),
        capture(module, measured.on_attention, measured.on_features) as taps,
        torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        for batch in source.batches(batch_size, workers=config.workers):
            module(batch.x.to(device))
            measured.end_batch(batch.ids, taps.layers)
            if progress:
                progress(len(measured.ids) + len(source.skipped), source.count)
    if not measured.ids:
        raise ImagesError("no image could be read", "give a folder with JPEG or PNG images")
    return measured


def _result(
    loaded: LoadedModel, measured: Measurement, config: AnalysisConfig, provenance: Provenance
) -> Result:
    import pandas as pd

    values = measured.values()
    uniform = {item.metric: item.uniform for item in values}
    bootstrap = tabulate.Bootstrap(config.resamples, config.seed)
    return Result(
        name=loaded.spec.name,
        config=config.flat(),
        provenance=provenance,
        model=model_card(loaded),
        layers=tabulate.layers_table(
            measured.layers, uniform=uniform, maximum=measured.distance_maximum()
        ),
        images=pd.DataFrame({"image": range(len(measured.ids)), "id": measured.ids}),
        tables=tabulate.tables(values, bootstrap),
        samples={item.metric: tabulate.samples_table(item) for item in values if item.per_image},
    )


def model_card(loaded: LoadedModel) -> dict[str, Any]:
    """Return the plain facts of a loaded model for manifests and reports."""
    card = asdict(loaded.spec)
    card["parameters"] = sum(parameter.numel() for parameter in loaded.module.parameters())
    card["ledger"] = {name: list(items) for name, items in asdict(loaded.ledger).items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in card.items()}


def _loaded(model: LoadedModel | nn.Module | str | Path) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, nn.Module):
        return wrap(model)
    return checkpoints.load(model)


def pick_device(name: str) -> torch.device:
    """Return a device that works; `auto` prefers CUDA.

    Raises:
        AttnprobeError: The device does not exist or cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise AttnprobeError(
            f"device {name!r} cannot be used: {reason}", "choose cpu, cuda, or auto"
        ) from error
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _precision(name: str) -> torch.dtype | None:
    name = "fp32" if name == "auto" else name
    if name not in PRECISIONS:
        raise AttnprobeError(
            f"unknown precision {name!r}", f"choose one of: auto, {', '.join(PRECISIONS)}"
        )
    return PRECISIONS[name]


@cache
def _versions() -> dict[str, str]:
    names = ("attnprobe", "torch", "timm", "numpy", "scipy", "pandas")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}
