"""One measurement of a model that is being trained, on images that are kept as a tensor."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from attnprobe.analysis import device_name, tabulated, versions_used
from attnprobe.capture import capture
from attnprobe.checkpoints import LoadedModel
from attnprobe.datasets import open_set
from attnprobe.gathering import Gathered
from attnprobe.measuring import Measurement
from attnprobe.parts import Part
from attnprobe.precision import Precision
from attnprobe.probing.undisturbed import undisturbed
from attnprobe.readout import Readout, kernel_names
from attnprobe.resources import batch_size
from attnprobe.results import Result
from attnprobe.settings import AnalysisConfig
from attnprobe.tensors import AttentionInputs
from attnprobe.types import CheckpointSpec, LoadLedger, Provenance

BESIDE_TRAINING = 4  # part of a device that a probe takes, whose memory holds the training
ASSUMED = "the weights are those of a training that went on"


@dataclass(frozen=True)
class ProbeImages:
    """Images of a probe, decoded once.

    Attributes:
        ids: One id an image.
        x: Preprocessed, float [n, 3, height, width], on the CPU.
        sha256: Hash over ids and contents, see `ImageSet`.
        skipped: "id: reason" of those that could not be read.
        transform: Preprocessing, one entry a step, as text.
    """

    ids: tuple[str, ...]
    x: Tensor
    sha256: str
    skipped: tuple[str, ...]
    transform: dict[str, str]


def decoded(images: Any, spec: CheckpointSpec, limit: int) -> ProbeImages:
    """Read and preprocess images.

    Args:
        images: Anything `open_set` takes.
        spec: How to preprocess.
        limit: How many, evenly spaced over the source.

    Raises:
        ImagesError: There are none, or they do not fit the model.
    """
    source = open_set(images, spec=spec, limit=limit)
    batches = list(source.batches(limit))
    return ProbeImages(
        ids=tuple(name for batch in batches for name in batch.ids),
        x=torch.cat([batch.x for batch in batches]),
        sha256=source.sha256,
        skipped=source.skipped,
        transform=dict(source.transform),
    )


def described(module: nn.Module, images: Any) -> CheckpointSpec:
    """Return the preprocessing that a module's own configuration names; its weights unread.

    Args:
        module: A timm-style module, or any other.
        images: Images of the probe; preprocessed ones tell the size themselves.
    """
    config = resolve_model_data_config(module)
    known = getattr(module, "pretrained_cfg", None) or {}
    architecture = known.get("architecture") or type(module).__name__
    channels, height, width = config["input_size"]
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if isinstance(images, Tensor) and images.ndim == 4:
        channels, height, width = images.shape[1:]
    elif isinstance(built, tuple):
        height, width = built
    return CheckpointSpec(
        name=architecture,
        architecture=architecture,
        format="module",
        input_size=(channels, height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=float(config["crop_pct"]),
        assumed=(ASSUMED,),
    )


def snapshot(
    module: nn.Module, images: ProbeImages, spec: CheckpointSpec, config: AnalysisConfig
) -> Result:
    """Measure a module as it is now; neither it nor the training around it changes.

    Raises:
        AttnprobeError: Its attention cannot be read, or a value is not a finite number.
    """
    started = time.perf_counter()
    measured = Measurement.start(config.metrics, config.options, kernel=config.kernel)
    device, seen = next(module.parameters()).device, set[torch.dtype]()

    def on_attention(inputs: AttentionInputs) -> None:
        seen.add(inputs.q.dtype)
        measured.on_attention(inputs)

    with undisturbed(module):
        part = _run(module, images, measured, config, on_attention)
    provenance = Provenance(
        images_sha256=images.sha256,
        images=len(images.ids),
        skipped=images.skipped,
        transform=images.transform,
        versions=dict(versions_used()),
        device=device_name(device),
        precision=", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in seen)),
        kernel=kernel_names(part.kernels),
        seed=config.seed,
        command="AttentionProbe",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    loaded = LoadedModel(spec, module, LoadLedger())
    readout = Readout(measured.metrics, config.options, part)
    result = tabulated(loaded, readout, images.ids, config, provenance)
    seconds = round(time.perf_counter() - started, 3)
    return replace(result, provenance=replace(provenance, seconds=seconds))


def _run(
    module: nn.Module,
    images: ProbeImages,
    measured: Measurement,
    config: AnalysisConfig,
    on_attention: Any,
) -> Part:
    """Pass the images through the module, batch by batch."""
    first, count = next(module.parameters()), len(images.ids)
    precision = Precision("fp32" if config.precision == "auto" else config.precision)
    size = config.batch_size or _batch_size(images.x, first.device)
    gathered = Gathered(measured.metrics, config.options, count, first.device)
    with (
        capture(module, on_attention, measured.on_features) as taps,
        precision.running(first.device),
    ):
        for start in range(0, count, size):
            numbers = range(start, min(start + size, count))
            module(images.x[start : start + size].to(first.device, first.dtype))
            blank = np.zeros((len(numbers), 32), dtype=np.uint8)
            gathered.add_batch(measured.take(taps.layers), numbers, blank, {})
    return gathered.finish()


def _batch_size(x: Tensor, device: torch.device) -> int:
    """Return how many of the images [n, 3, height, width] go through a pass."""
    chosen = batch_size(0, (x.shape[1], x.shape[2], x.shape[3]), device)
    return chosen if device.type == "cpu" else max(1, chosen // BESIDE_TRAINING)
