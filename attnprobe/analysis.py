"""analyze(model, images) -> Result: the only loop over data.

Layers report while the forward pass runs, are reduced to per-image numbers at once, and the
numbers become tables with intervals at the end.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from attnprobe import checkpoints, kernels, tabulate
from attnprobe.capture import capture
from attnprobe.checkpoints import LoadedModel
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.errors import ImagesError
from attnprobe.images import ImageSet, evenly_spaced, open_images
from attnprobe.mapmaking import MapMaker
from attnprobe.measuring import Measurement
from attnprobe.results import Result
from attnprobe.settings import (
    AnalysisConfig,
    configure,
    pick_device,
    precision_of,
    without_cka_of_few,
)
from attnprobe.tensors import AttentionInputs
from attnprobe.types import Provenance

Progress = Callable[[int, int], None]


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
        **changes: Fields of `AnalysisConfig` or `MetricOptions` to set, e.g. `batch_size=4`.

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
    config = configure(config or AnalysisConfig(), metrics, changes)
    started = time.perf_counter()
    loaded = _loaded(model)
    device, dtype = pick_device(config.device), precision_of(config.precision)
    source = open_images(images, spec=loaded.spec, limit=config.limit)
    config = without_cka_of_few(config, source.count)
    held = next(loaded.module.parameters()).dtype
    maker = _map_maker(loaded, source, config)
    with _ready(loaded.module, device):
        measured = _measure(
            loaded.module, source, config, dtype=dtype, progress=progress, maker=maker
        )
    provenance = Provenance(
        weights_sha256=loaded.spec.sha256,
        images_sha256=source.sha256,
        images=len(measured.ids),
        skipped=tuple(source.skipped),
        transform=dict(source.transform),
        versions=dict(versions_used()),
        device=device_name(device),
        precision=str(dtype or held).removeprefix("torch."),
        kernel=kernels.choose(config.options, config.kernel),
        seed=config.seed,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
    )
    return tabulated(loaded, measured, config, provenance, maker.arrays())


@contextmanager
def _ready(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Put a module in eval mode on a device, and back as it was afterwards."""
    training = [part for part in module.modules() if part.training]
    home = next(module.parameters()).device
    try:
        module.eval().to(device)
        yield
    finally:
        module.to(home)
        for part in training:
            part.training = True


def _measure(
    module: nn.Module,
    source: ImageSet,
    config: AnalysisConfig,
    *,
    dtype: torch.dtype | None,
    progress: Progress | None,
    maker: MapMaker,
) -> Measurement:
    """Run the forward passes; the layers report while they run."""
    device, held = next(module.parameters()).device, next(module.parameters()).dtype
    measured = Measurement.start(config.metrics, config.options, kernel=config.kernel)
    batch_size = config.batch_size or (8 if device.type == "cpu" else 64)

    def on_attention(inputs: AttentionInputs) -> None:
        measured.on_attention(inputs)
        maker.on_attention(inputs)

    with (
        torch.inference_mode(),
        capture(module, on_attention, measured.on_features) as taps,
        torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        for batch in source.batches(batch_size, workers=config.workers):
            maker.begin_batch(batch.ids, batch.x)
            module(batch.x.to(device, held))
            measured.end_batch(batch.ids, taps.layers)
            if progress:
                progress(len(measured.ids) + len(source.skipped), source.count)
    if not measured.ids:
        raise ImagesError("no image could be read", "give a folder with JPEG or PNG images")
    return measured


def _map_maker(loaded: LoadedModel, source: ImageSet, config: AnalysisConfig) -> MapMaker:
    """Choose the images of which maps are kept, by number and by id."""
    spread = evenly_spaced(source.count, config.maps) if config.maps else []
    named = frozenset(config.map_images)
    if absent := sorted(named - set(source.ids)):
        raise ImagesError(
            f"no image of {source.label} is called {absent[0]!r}",
            f"name an image as the run's table of images does, such as {source.ids[0]!r}",
        )
    return MapMaker(frozenset(spread), named, loaded.spec.mean, loaded.spec.std)


def tabulated(
    loaded: LoadedModel,
    measured: Measurement,
    config: AnalysisConfig,
    provenance: Provenance,
    taken: dict[str, np.ndarray],
) -> Result:
    """Return what was measured as tables with intervals, and the maps that were taken."""
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
        arrays=measured.arrays() | ({"maps": taken} if taken else {}),
    )


def model_card(loaded: LoadedModel) -> dict[str, Any]:
    """Return the plain facts of a loaded model for manifests and reports."""
    card = asdict(loaded.spec)
    card["parameters"] = sum(parameter.numel() for parameter in loaded.module.parameters())
    card |= {} if loaded.epoch is None else {"epoch": loaded.epoch}
    card["ledger"] = {name: list(items) for name, items in asdict(loaded.ledger).items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in card.items()}


def _loaded(model: LoadedModel | nn.Module | str | Path) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, nn.Module):
        return wrap(model)
    return checkpoints.load(model)


def device_name(device: torch.device) -> str:
    """Return what a device is called in provenance."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def versions_used() -> dict[str, str]:
    """Return the versions of what a measurement rests on."""
    names = ("attnprobe", "torch", "timm", "numpy", "scipy", "pandas")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}
