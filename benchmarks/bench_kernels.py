"""Section kernels: statistics of one layer by every implementation, on a CUDA device.

The floor is the layer's own attention, F.scaled_dot_product_attention over the same queries and
keys. A time is that of a call among many that follow each other, in fp32 and bf16, whatever
precision is asked for. Without a CUDA device there is nothing to time.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from _common import Measure, Measured, Settings, interleave
from _rows import Row, agreed, gate, quartiles, row
from torch import Tensor
from torch.nn import functional as F

from attnprobe import doctor
from attnprobe.kernels import blocked, fused
from attnprobe.tensors import AttentionInputs
from attnprobe.types import TokenGrid

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ATTENTION, ROWS, BLOCKED = "attention itself", "fused: all but kl", "blocked: all"
VARIANTS = {"pairs": "fused: all, heads by pairs", "together": "fused: all, heads together"}
QUANTITY = "a call"
TOLERANCE = 1e-4  # of the blocked kernel, which the gate compares with float64


class Case(NamedTuple):
    """One layer of one batch."""

    title: str
    grid: TokenGrid
    heads: int
    dim: int
    images: int
    windows: int = 1


def vit(side: int, patch: int) -> TokenGrid:
    """Return a square grid with a class token."""
    return TokenGrid(side, side, (patch, patch), prefix=1)


def swin(side: int, patch: int) -> TokenGrid:
    """Return a square grid in shifted windows of seven."""
    return TokenGrid(side, side, (patch, patch), window=(7, 7), shift=(3, 3))


CASES = {
    "full": (
        Case("ViT-B/16 at 224, batch 64", vit(14, 16), 12, 64, 64),
        Case("ViT-B/16 at 1024, batch 4", vit(64, 16), 12, 64, 4),
        Case("ViT-L/14 at 518, batch 8", vit(37, 14), 16, 64, 8),
        Case("Swin-B at 224, stage 1, batch 16", swin(56, 4), 4, 32, 16, windows=64),
        Case("Swin-B at 224, stage 3, batch 16", swin(14, 16), 16, 32, 16, windows=4),
    ),
    "quick": (Case("ViT-B/16 at 224, batch 8", vit(14, 16), 12, 64, 8),),
    "toy": (Case("three heads, 16 patches", vit(4, 16), 3, 16, 2),),
}
CALLS = {"full": 50, "quick": 20, "toy": 2}


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of one case and precision after the other."""
    if not settings.cuda:
        print("kernels: they are timed on a CUDA device only, and the device is a CPU")
        return
    gate(settings.device)
    for case in CASES[settings.size]:
        for precision, dtype in DTYPES.items():
            inputs = layer(case, dtype, settings.device)
            about = replace(settings, precision=precision)
            yield measured(case, inputs, about)


def layer(case: Case, dtype: torch.dtype, device: str) -> AttentionInputs:
    """Return seeded inputs, heads beside each other in memory as a projection leaves them."""
    grid, windows = case.grid, case.windows
    one = doctor.example(grid, case.heads, case.dim, windows=windows, device=device, dtype=dtype)
    copies = case.images // one.images

    def laid_out(x: Tensor) -> Tensor:
        return x.repeat(copies, 1, 1, 1).transpose(1, 2).contiguous().transpose(1, 2)

    return replace(one, images=case.images, q=laid_out(one.q), k=laid_out(one.k))


def calls(inputs: AttentionInputs) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; the first is the floor."""
    mask = inputs.bias
    if mask is not None:
        mask = mask.repeat(len(inputs.q) // len(mask), 1, 1, 1).to(inputs.q.dtype)
    v = inputs.k.clone()
    attention = partial(F.scaled_dot_product_attention, inputs.q, inputs.k, v, attn_mask=mask)
    found: dict[str, Callable[[], object]] = {
        ATTENTION: partial(attention, scale=inputs.scale),
        ROWS: partial(fused.attention_stats, inputs, doctor.ALL - {"kl"}),
        BLOCKED: partial(blocked.attention_stats, inputs, doctor.ALL),
    }
    variants = ("pairs",) if fused.pairs_because(inputs) else VARIANTS
    for variant in variants:
        whole = partial(fused.attention_stats, inputs, doctor.ALL, variant=variant)
        found[VARIANTS[variant]] = whole
    return found


def measured(case: Case, inputs: AttentionInputs, settings: Settings) -> list[Row]:
    """Return the rows of one case.

    Raises:
        ClickException: Two implementations disagree.
    """
    ways = calls(inputs)
    truth = blocked.attention_stats(inputs, doctor.ALL)
    for variant, name in VARIANTS.items():
        if name in ways:
            found = fused.attention_stats(inputs, doctor.ALL, variant=variant)
            apart = doctor.deviation(found, truth)
            agreed(f"{case.title}, {settings.precision}: {name}", apart, TOLERANCE)
    providers = {name: timer(way, settings) for name, way in ways.items()}
    times = interleave(providers, settings.rounds or 5)
    because = fused.pairs_because(inputs)
    if because:
        times[VARIANTS["together"]] = because
    return rows(case, times, settings)


def timer(way: Callable[[], object], settings: Settings) -> Measure:
    """Return what times many calls by the device's clock, in milliseconds each."""
    count = CALLS[settings.size]

    def measure() -> dict[str, float]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            way()
        end.record()
        end.synchronize()
        return {QUANTITY: begin.elapsed_time(end) / count}

    return measure


def rows(case: Case, found: Measured, settings: Settings) -> list[Row]:
    """Return one row a provider: the median, and quartiles of the ratio to the attention."""
    made, floor = [], found[ATTENTION]
    for name, runs in found.items():
        about = {"section": "kernels", "case": case.title, "provider": name, "quantity": QUANTITY}
        about |= {"images": case.images, "batch": case.images}
        if isinstance(runs, str) or isinstance(floor, str):
            made.append(row(settings, **about, note=runs if isinstance(runs, str) else ""))
            continue
        values = [each[QUANTITY] for each in runs]
        ratios = [value / base[QUANTITY] for value, base in zip(values, floor, strict=True)]
        value = sorted(values)[len(values) // 2]
        facts = {"value": value, "unit": "ms", "rounds": len(runs)}
        made.append(row(settings, **about, **facts, **quartiles(ratios)))
    return made
