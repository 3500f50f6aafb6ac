"""How to measure: the settings of a run, checked before any work."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from attnprobe import metrics
from attnprobe.errors import AttnprobeError
from attnprobe.hsic import SMALLEST
from attnprobe.processes import local_rank
from attnprobe.types import MetricOptions

FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class AnalysisConfig:
    """How to measure; saved beside the result and accepted back.

    Attributes:
        metrics: Names of the metrics.
        options: Their conventions.
        batch_size: Images in one forward pass; 0 chooses by device.
        split: Which part, of image sets that are divided: train, val, test or their own word.
        limit: Largest number of images, evenly spaced over the set; None for all.
        device: auto, cpu, cuda, cuda:1, ...
        precision: auto, fp32, tf32, bf16 or fp16 for the forward pass; measuring is always fp32.
        compile: Whether torch.compile goes over the model, but for its attention.
        graphs: Whether passes on a CUDA device are recorded as CUDA graphs and replayed.
        kernel: auto, fused, blocked or reference.
        resamples: Bootstrap draws.
        seed: Seed of the bootstrap.
        workers: Processes that decode images; -1 chooses by device.
        maps: Images of which attention maps are kept, evenly spaced over the set.
        map_images: Images of which maps are kept, by id, beside those.
        mask_ratio: Share of every image that is hidden as in pre-training; 0 for whole images.
        mask_seed: Seed of the masks, beside the images' ids.
        mask_how: drop, replace (by the mask token), or auto: as the checkpoint was pre-trained.
        mask_patch: Side in pixels of squares hidden as a whole; 0 for what pre-training hid.
    """

    metrics: tuple[str, ...] = metrics.DEFAULT
    options: MetricOptions = MetricOptions()
    batch_size: int = 0
    split: str = "val"
    limit: int | None = None
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    graphs: bool = False
    kernel: str = "auto"
    resamples: int = 2000
    seed: int = 0
    workers: int = -1
    maps: int = 0
    map_images: tuple[str, ...] = ()
    mask_ratio: float = 0.0
    mask_seed: int = 0
    mask_how: str = "auto"
    mask_patch: int = 0

    def flat(self) -> dict[str, Any]:
        """Return every setting by name, conventions included; what `--config` reads.

        >>> AnalysisConfig().flat()["distance_unit"]
        'px'
        """
        lists = {"metrics": list(self.metrics), "map_images": list(self.map_images)}
        settings = {**asdict(self), **asdict(self.options), **lists}
        del settings["options"]
        return settings

    def label(self, name: str) -> str:
        """Return what a result of a model is called: its name, and how much of images was hidden.

        >>> AnalysisConfig(mask_ratio=0.75).label("mae")
        'mae, 75% masked'
        """
        return f"{name}, {100 * self.mask_ratio:.4g}% masked" if self.mask_ratio else name


def configure(
    config: AnalysisConfig, chosen: Iterable[str] | None, changes: dict[str, Any]
) -> AnalysisConfig:
    """Return a configuration with other metrics and other fields, conventions among them.

    Raises:
        AttnprobeError: There are too few bootstrap draws.
    """
    known = {item.name for item in fields(MetricOptions)}
    options = {name: changes.pop(name) for name in known & set(changes)}
    config = replace(config, **changes)
    config = replace(config, options=replace(config.options, **options))
    if chosen is not None:
        config = replace(config, metrics=(chosen,) if isinstance(chosen, str) else tuple(chosen))
    if config.resamples < FEWEST_RESAMPLES:
        raise AttnprobeError(
            f"{config.resamples} bootstrap draws are too few", f"use {FEWEST_RESAMPLES} or more"
        )
    return config


def without_cka_of_few(config: AnalysisConfig, images: int) -> AnalysisConfig:
    """Leave CKA out where nobody asked for it by name and there are too few images for it."""
    if config.metrics != AnalysisConfig.metrics or images >= SMALLEST:
        return config
    warnings.warn(
        f"cka was left out: it needs {SMALLEST} images or more, got {images}", stacklevel=3
    )
    return replace(config, metrics=tuple(name for name in config.metrics if name != "cka"))


def pick_device(name: str) -> torch.device:
    """Return a device that works; `auto` prefers CUDA.

    Raises:
        AttnprobeError: The device does not exist or cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():  # one a process
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise AttnprobeError(
            f"device {name!r} cannot be used: {reason}", "choose cpu, cuda, or auto"
        ) from error
    return device


def device_of(config: AnalysisConfig) -> torch.device:
    """Return the device of a measurement.

    Raises:
        AttnprobeError: It cannot be used, or has not what was asked for.
    """
    device = pick_device(config.device)
    if config.graphs and device.type != "cuda":
        raise AttnprobeError("CUDA graphs need a CUDA device", "leave --graphs out")
    return device
