"""Does attnprobe measure right on this machine? Kernels against float64, and known answers."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from attnprobe import kernels
from attnprobe.kernels import fused, reference
from attnprobe.metrics.distance import uniform
from attnprobe.settings import pick_device
from attnprobe.tensors import AttentionInputs, AttentionStats
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

if TYPE_CHECKING:
    from rich.table import Table

ALL = frozenset({"distance", "entropy", "prefix_mass", "kl"})
# relative to the largest value; half-precision inputs are compared with the same inputs in
# float64, so that the kernel is judged and not the rounding of its inputs
TOLERANCE = 1e-5
# values below these are compared as if they were these: px, nats, fraction, nats
FLOORS = (1.0, 0.1, 0.01, 0.1)
CASES = (
    ("ViT-B/16 at 224", TokenGrid(14, 14, (16, 16), prefix=1), 12, 64, 1),
    ("DINOv2 with registers", TokenGrid(16, 16, (14, 14), prefix=5), 6, 64, 1),
    ("odd sizes", TokenGrid(5, 3, (8, 8), prefix=2), 3, 20, 1),
    ("one patch", TokenGrid(1, 1, (16, 16)), 2, 16, 1),
    ("Swin windows", TokenGrid(14, 14, (4, 4), window=(7, 7), shift=(3, 3)), 3, 32, 4),
)


class Check(NamedTuple):
    """One check: what, whether it passed, and the figure behind it."""

    name: str
    passed: bool
    detail: str


def checks(device: str = "auto") -> list[Check]:
    """Run every check on one device."""
    place = pick_device(device)
    tiny = example(CASES[-2][1], 2, 16, device=place)
    found: list[Check] = []
    for name, kernel in kernels.FAST.items():
        if kernel is not fused or not fused.unsupported(tiny):
            found += _known_answers(place, name)
            found += _against_reference(place, name)
    return found


def table(found: list[Check]) -> "Table":
    """Return the checks as a table for the terminal."""
    from rich import box
    from rich.table import Table

    screen = Table(box=box.SIMPLE_HEAD)
    for heading in ("check", "", "detail"):
        screen.add_column(heading)
    for check in found:
        screen.add_row(check.name, "ok" if check.passed else "FAILED", check.detail)
    return screen


def example(
    grid: TokenGrid,
    heads: int,
    dim: int,
    *,
    windows: int = 1,
    spread: float = 1.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> AttentionInputs:
    """Return seeded attention inputs for a grid; windowed ones carry a bias with masked pairs."""
    generator = torch.Generator().manual_seed(0)
    shape = (2 * windows, heads, grid.tokens, dim)
    q, k = (spread * torch.randn(shape, generator=generator) for _ in range(2))
    bias = None
    if grid.window:
        bias = torch.randn(windows, heads, grid.tokens, grid.tokens, generator=generator)
        far = torch.rand(windows, 1, grid.tokens, grid.tokens, generator=generator) > 0.7
        far = far & ~torch.eye(grid.tokens, dtype=torch.bool)
        bias = bias.masked_fill(far, float("-inf")).to(device)
    layer = LayerInfo(0, "example", heads, dim, grid)
    q, k = (x.to(device=device, dtype=dtype) for x in (q, k))
    return AttentionInputs(layer, 2, q, k, dim**-0.5, bias)


def deviation(found: AttentionStats, truth: AttentionStats) -> float:
    """Return the largest difference, relative to the largest value of its statistic."""
    worst = 0.0
    for ours, theirs, floor in zip(found, truth, FLOORS, strict=True):
        if ours is not None and theirs is not None and ours.numel():
            gap = (ours.double() - theirs.double()).abs().max()
            relative = float(gap / theirs.abs().max().clamp(min=floor))
            worst = math.inf if math.isnan(relative) else max(worst, relative)
    return worst


def _known_answers(device: torch.device, kernel: str) -> Iterator[Check]:
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    flat = example(grid, 2, 64, spread=0.0, device=device)
    stats = kernels.attention_stats(flat, ALL, implementation=kernel)
    truth = (
        ("uniform attention: distance", stats.distance, uniform(grid, MetricOptions()), "px"),
        ("uniform attention: entropy", stats.entropy, math.log(196), "nats"),
        ("uniform attention: head KL", stats.kl, 0.0, "nats"),
        ("uniform attention: prefix mass", stats.prefix_mass, 1 / 197, ""),
    )
    for name, value, expected, unit in truth:
        yield _close(f"{kernel}: {name}", value, expected, unit)
    grid = TokenGrid(10, 10, (16, 16), prefix=1)
    eye = torch.eye(grid.tokens, device=device).expand(2, 2, -1, -1)
    sharp = AttentionInputs(replace(flat.layer, grid=grid), 2, 1e4 * eye, eye, 1.0)
    stats = kernels.attention_stats(sharp, ALL, implementation=kernel)
    yield _close(f"{kernel}: identity attention: distance", stats.distance, 0.0, "px")
    yield _close(f"{kernel}: identity attention: entropy", stats.entropy, 0.0, "nats")


def _close(name: str, value: Tensor | None, expected: float, unit: str) -> Check:
    if value is None:
        return Check(name, passed=False, detail="not reported")
    gap = float((value.double() - expected).abs().max())
    detail = f"expected {expected:.5g} {unit}, off by {gap:.1e}".replace("  ", " ")
    return Check(name, gap <= TOLERANCE * max(1.0, abs(expected)), detail)


def _against_reference(device: torch.device, kernel: str) -> Iterator[Check]:
    # the interpreter would take minutes over the large ones
    small = kernel == "fused" and fused.interpreted()
    for name, grid, heads, dim, windows in CASES[2:] if small else CASES:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            inputs = example(grid, heads, dim, windows=windows, device=device, dtype=dtype)
            found = kernels.attention_stats(inputs, ALL, implementation=kernel)
            worst = deviation(found, reference.attention_stats(inputs, ALL))
            label = f"{kernel}: {name}, {str(dtype).removeprefix('torch.')} inputs"
            detail = f"largest relative deviation from float64 {worst:.1e}"
            yield Check(label, worst <= TOLERANCE, detail)
