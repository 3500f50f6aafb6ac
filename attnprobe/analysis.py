"""analyze(model, images) -> Result: the only loop over data.

Layers report while the forward pass runs, are reduced to per-image numbers at once, and the
numbers become tables with intervals at the end.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from attnprobe import checkpoints, precision, tabulate
from attnprobe.attention.given import Given
from attnprobe.checkpoints import LoadedModel
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.compiling import compiled
from attnprobe.datasets import open_set
from attnprobe.graphs import Graphs, by_cuda
from attnprobe.images import ImageSet, combined_hash
from attnprobe.mapmaking import arrays_of_maps, map_maker, note_lost
from attnprobe.masking import hiding
from attnprobe.measuring import Measurement
from attnprobe.passes import Passes
from attnprobe.precision import Precision
from attnprobe.processes import World
from attnprobe.readout import Readout, kernel_names
from attnprobe.resources import batch_size, cores, decoders
from attnprobe.results import Result
from attnprobe.settings import AnalysisConfig, configure, device_of, without_cka_of_few
from attnprobe.survey import Progress, Survey
from attnprobe.types import Provenance


def analyze(
    model: LoadedModel | nn.Module | str | Path,
    images: Any = "bundled",
    metrics: Iterable[str] | None = None,
    *,
    grid: Given | None = None,
    config: AnalysisConfig | None = None,
    progress: Progress | None = None,
    command: str = "python",
    **changes: Any,
) -> Result:
    """Measure every attention head of a model on a set of images.

    Args:
        model: A loaded model, any module that takes images, or anything `load` takes.
        images: Anything `datasets.open_set` takes, or a preprocessed tensor [n, 3, h, w].
        metrics: Names of the metrics; the default ones of `attnprobe list metrics`.
        grid: Where the tokens of a module of your own lie, e.g. (rows, columns, prefix tokens);
            see `capture`.
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
    loaded = _loaded(model, images)
    loaded = loaded if grid is None else replace(loaded, grid=grid)
    result = analyze_together(
        loaded, images, World(), config=config, progress=progress, command=command
    )
    return cast("Result", result)  # alone, this process is the main one


def analyze_together(
    model: LoadedModel | nn.Module | str | Path,
    images: Any,
    world: World,
    *,
    config: AnalysisConfig,
    progress: Progress | None = None,
    command: str = "python",
    state: Path | None = None,
    resume: bool = False,
) -> Result | None:
    """Measure a model in several processes, each on its share of the images.

    All of them must call this with the same arguments.

    Args:
        model: As for `analyze`.
        images: As for `analyze`.
        world: The processes, from `processes.joined()`.
        config: How to measure.
        progress: Called with images done and images in all of this process.
        command: What to record as the command.
        state: A folder in which every batch is kept until the caller removes it, so that an
            interrupted measurement can be resumed; None to keep nothing.
        resume: Go on from what `state` holds.

    Returns:
        The result in the main process; None in the others.

    Raises:
        AttnprobeError: The model, the images, the options or the state cannot be used, or
            another process has ended.
    """
    started = time.perf_counter()
    loaded = _loaded(model, images)
    device = device_of(config)
    precision.checked(config.precision, device)
    source = open_set(images, spec=loaded.spec, limit=config.limit, split=config.split)
    config = without_cka_of_few(config, source.count)
    with _ready(loaded.module, device), compiled(loaded.module, wanted=config.compile):
        survey = _survey(loaded, source, config, world)
        survey.folder, survey.resume = state, resume
        part = survey.run(progress, workers=decoders(config.workers, device, cores()))
        held = survey.passes.held
    if part is None:
        return None
    note_lost(part, source, config.map_images)
    used = [source.ids[number] for number in part.numbers.tolist()]
    provenance = Provenance(
        weights_sha256=loaded.spec.sha256,
        images_sha256=combined_hash(used, (row.tobytes() for row in part.digests)),
        images=len(used),
        skipped=tuple(part.skipped[number] for number in sorted(part.skipped)),
        transform={**source.transform, **survey.passes.transform},
        versions=dict(versions_used()),
        device=device_name(device),
        precision=survey.passes.precision.title(held),
        deviation=survey.deviation,
        kernel=kernel_names(part.kernels),
        processes=world.count,
        seed=config.seed,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
    )
    measurement, masked = survey.passes.measurement, provenance.transform.get("mask", "")
    readout = Readout(measurement.metrics, config.options, part, masked)
    loaded = replace(loaded, spec=replace(loaded.spec, name=config.label(loaded.spec.name)))
    return tabulated(loaded, readout, used, config, provenance)


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


def _survey(loaded: LoadedModel, source: ImageSet, config: AnalysisConfig, world: World) -> Survey:
    measurement = Measurement.start(config.metrics, config.options, config.kernel, loaded.metrics)
    device = next(loaded.module.parameters()).device
    passes = Passes(
        loaded.module,
        measurement,
        map_maker(source, loaded.spec, config.maps, config.map_images),
        Precision("fp32"),
        batch_size(config.batch_size, loaded.spec.input_size, device),
        Graphs(measurement, by_cuda) if config.graphs else None,
        loaded.readers,
        loaded.grid,
        hiding(loaded, config),
    )
    return Survey(passes, source, config, loaded.spec, world)


def tabulated(
    loaded: LoadedModel,
    readout: Readout,
    ids: Sequence[str],
    config: AnalysisConfig,
    provenance: Provenance,
) -> Result:
    """Return what was measured as tables with intervals, and the maps that were taken."""
    import pandas as pd

    values = readout.values()
    uniform = {item.metric: item.uniform for item in values}
    bootstrap = tabulate.Bootstrap(config.resamples, config.seed)
    taken = arrays_of_maps(readout.part)
    return Result(
        name=loaded.spec.name,
        config=config.flat(),
        provenance=provenance,
        model=model_card(loaded),
        layers=tabulate.layers_table(
            list(readout.layers), uniform=uniform, maximum=readout.distance_maximum()
        ),
        images=pd.DataFrame({"image": range(len(ids)), "id": list(ids)}),
        tables=tabulate.tables(values, bootstrap),
        samples={item.metric: tabulate.samples_table(item) for item in values if item.per_image},
        arrays=readout.arrays() | ({"maps": taken} if taken else {}),
    )


def model_card(loaded: LoadedModel) -> dict[str, Any]:
    """Return the plain facts of a loaded model for manifests and reports."""
    card = asdict(loaded.spec)
    card["parameters"] = sum(parameter.numel() for parameter in loaded.module.parameters())
    card |= {} if loaded.epoch is None else {"epoch": loaded.epoch}
    card["ledger"] = {name: list(items) for name, items in asdict(loaded.ledger).items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in card.items()}


def _loaded(model: LoadedModel | nn.Module | str | Path, images: Any) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, nn.Module):
        sizes = images.shape[1:] if isinstance(images, torch.Tensor) else ()
        return wrap(model, size=(sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None)
    return checkpoints.load(model)


def device_name(device: torch.device) -> str:
    """Return what a device is called in provenance."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def versions_used(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of packages; by default of what a measurement rests on."""
    names = packages or ("attnprobe", "torch", "timm", "numpy", "scipy", "pandas")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}
