"""Floating-point types of the forward pass, and what a smaller one changes.

Measuring is fp32 with fp32 sums always; the precision is that of the model's own pass. `auto`
takes a smaller type only where the first batch shows that it stays within the tolerance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnprobe.errors import AttnprobeError
from attnprobe.measuring import Batch
from attnprobe.metrics import Metric
from attnprobe.parts import SEPARATOR, by_layer
from attnprobe.types import MetricOptions

NAMES = ("auto", "fp32", "tf32", "bf16", "fp16")
TOLERANCE = 1e-2  # of bf16 inputs beside fp32 ones, as METRIC definitions v1 state
NOISE = 1e-6  # differences that fp32 itself shows, in the units of the metrics
PAYS = 512  # images from which trying a smaller type on a CPU is worth its two extra passes


@dataclass(frozen=True)
class Precision:
    """How the forward pass computes.

    Attributes:
        name: fp32, tf32, bf16 or fp16.
    """

    name: str

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of autocast, or None to run the model as its weights are."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)

    def title(self, held: torch.dtype) -> str:
        """Return what provenance states, for weights of type `held`."""
        return "tf32" if self.name == "tf32" else str(self.dtype or held).removeprefix("torch.")

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Compute so while the context is open."""
        matmul, convolution = torch.backends.cuda.matmul, _cudnn()
        before = matmul.allow_tf32, convolution.allow_tf32
        cast = torch.autocast(
            device.type,
            dtype=self.dtype or torch.bfloat16,
            enabled=self.dtype is not None,
            cache_enabled=torch.is_inference_mode_enabled(),
        )
        try:
            if device.type == "cuda":  # cuDNN would use tf32 unasked
                matmul.allow_tf32 = convolution.allow_tf32 = self.name == "tf32"
            with cast:
                yield
        finally:
            if device.type == "cuda":
                matmul.allow_tf32, convolution.allow_tf32 = before


def checked(name: str, device: torch.device) -> str:
    """Return the name of a precision that the device has.

    Raises:
        AttnprobeError: It is unknown, or the device has it not.
    """
    if name not in NAMES:
        raise AttnprobeError(f"unknown precision {name!r}", f"choose one of: {', '.join(NAMES)}")
    if name == "tf32" and device.type != "cuda":
        raise AttnprobeError(
            f"tf32 is a type of CUDA devices, not of {device.type}", "use --precision fp32 or bf16"
        )
    return name


def check_weights(name: str, held: torch.dtype) -> None:
    """Refuse a type for weights that are of another small one.

    Raises:
        AttnprobeError: They are.
    """
    wanted = Precision(name).dtype
    if wanted is not None and held not in (torch.float32, wanted):
        raise AttnprobeError(
            f"weights of {str(held).removeprefix('torch.')} cannot run in {name}",
            "leave --precision at auto",
        )


def candidates(name: str, device: torch.device, images: int, batch: int) -> tuple[Precision, ...]:
    """Return the smaller types to try before fp32, best first.

    Args:
        name: What was asked for; only `auto` tries.
        device: Where the passes run.
        images: Images of the run.
        batch: Images of a pass.
    """
    if name != "auto":
        return ()
    if device.type == "cuda":
        has = ("bf16", "tf32") if torch.cuda.is_bf16_supported() else ("tf32",)
        return tuple(map(Precision, has)) if images > 4 * batch else ()
    pays = device.type == "cpu" and images >= PAYS and fast_bf16()
    return (Precision("bf16"),) if pays else ()


def _cudnn() -> Any:
    """Return cuDNN's settings, whose attributes the type stubs do not know."""
    return torch.backends.cudnn


def fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 faster than fp32 (AMX or AVX512-BF16)."""
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)


def deviation(
    full: Batch, low: Batch, metrics: tuple[Metric, ...], options: MetricOptions
) -> dict[str, float]:
    """Return the largest relative difference that a smaller type makes, by metric.

    Compared are the values of the tables: means over the images of the batch, for every layer
    and head (or pair of heads); CKA by its own value, as it is at most 1.

    Args:
        full: One batch measured in fp32.
        low: The same images in the smaller type.
        metrics: The metrics measured.
        options: Their conventions.
    """
    found: dict[str, float] = {}
    for name, rows in full.rows.items():
        metric = name.partition(SEPARATOR)[0]
        a, b = (x.mean(0, dtype=np.float64) for x in (rows, low.rows[name]))
        found[metric] = max(found.get(metric, 0.0), _relative(a, b))
    for metric in metrics:
        sides = [_of_features(batch, metric, options) for batch in (full, low)]
        if sides[0] is not None and sides[1] is not None:
            found[metric.name] = float(np.abs(sides[0] - sides[1]).max())
    for name, sums in full.sums.items():
        found["attention"] = max(found.get("attention", 0.0), _relative(sums, low.sums[name]))
    return {name: float(f"{value:.2g}") for name, value in found.items()}


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    gap = np.abs(a - b)
    return float(np.where(gap <= NOISE, 0.0, gap / np.maximum(np.abs(a), NOISE)).max())


def _of_features(batch: Batch, metric: Metric, options: MetricOptions) -> np.ndarray | None:
    """Return the value that one batch alone gives a metric over features, if it is enough."""
    layers = list(by_layer(batch.features, metric.name).values())
    if metric.features is None or not layers:
        return None
    if len(layers[0]) < metric.features.smallest:
        return None
    samples = metric.features.group(layers, options)["samples"]
    return metric.statistic.of_means(samples.mean(0))
