"""Section scaling: one analyze over 1, 2 and 4 processes by torchrun, images a second.

Every process has one thread on a CPU, and one device on CUDA. The rate is images over the
seconds that the run's manifest gives, which leaves out the start of the interpreters. The tables
of every number of processes have to agree with those of one.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from _common import Settings
from _photos import photographs
from _rows import Row, agreed, gate, quartiles, row

import attnprobe

PROCESSES = (1, 2, 4)
TOLERANCE = 1e-5
SECONDS = 1200
CASES = {  # title, checkpoint, images, batch, rounds
    "full": ("ViT-S/16 at 224", "timm:vit_small_patch16_224?pretrained=0", 128, 8, 3),
    "quick": ("ViT-Ti/16 at 224", "timm:vit_tiny_patch16_224?pretrained=0", 64, 8, 1),
    "toy": ("ViT-Ti/4 at 32", "vit_tiny_cifar10_supervised", 16, 4, 1),
}


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield one row a number of processes."""
    gate(settings.device)
    title, checkpoint, wished, batch, turns = CASES[settings.size]
    size = settings.batch_of(batch)
    with tempfile.TemporaryDirectory() as place:
        folder = photographs(Path(place, "images"), 16 * size if settings.cuda else wished)
        job = ["analyze", checkpoint, "-i", str(folder), "--batch-size", str(size), "--maps", "0"]
        job += ["--workers", "4"] if settings.cuda else []
        job += ["--device", settings.device, "--precision", settings.precision]
        found = rounds(job, Path(place), turns=settings.rounds or turns, settings=settings)
    if found:
        yield rates(title, found, size, settings)


def places(settings: Settings) -> int:
    """Return how many processes have a core or a device of their own."""
    return torch.cuda.device_count() if settings.cuda else len(os.sched_getaffinity(0))


def rounds(
    job: list[str], place: Path, *, turns: int, settings: Settings
) -> dict[int, list[attnprobe.Result]]:
    """Return the results of every number of processes, round by round; what fails drops out."""
    many = [n for n in PROCESSES if n <= places(settings)]
    if left_out := set(PROCESSES) - set(many):
        print(f"{sorted(left_out)} processes are left out: {places(settings)} cores or devices")
    found: dict[int, list[attnprobe.Result]] = {n: [] for n in many}
    for turn in range(turns):
        for n in list(found):
            out = place / f"{n}-{turn}"
            if reason := launch(n, [*job, "-o", str(out)]):
                print(f"{n} processes are left out: {reason}")
                del found[n]
                continue
            found[n].append(attnprobe.Result.load(out))
            if n > 1:
                agreed(f"{n} processes", apart(found[n][0], found[1][0]), TOLERANCE)
    return found


def launch(processes: int, job: list[str]) -> str:
    """Run one job by torchrun; return why it failed, or nothing."""
    runner = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [sys.executable, *runner, "-m", "attnprobe", *job]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"no end after {SECONDS} s"
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error", "Error"))]
    return (lines or done.stderr.splitlines() or ["failed"])[-1] if done.returncode else ""


def apart(a: attnprobe.Result, b: attnprobe.Result) -> float:
    """Return the largest difference of the tables' values, relative to the largest value.

    Raises:
        ClickException: The runs measured different images.
    """
    if len(a.images) != len(b.images):
        raise click.ClickException(f"{len(a.images)} images in one run, {len(b.images)} in another")
    worst = 0.0
    for name, table in a.tables.items():
        theirs = b.tables[name]["value"].to_numpy()
        gap = np.abs(table["value"].to_numpy() - theirs).max()
        worst = max(worst, float(gap / max(np.abs(theirs).max(), 1e-12)))
    return worst


def rates(
    title: str, found: dict[int, list[attnprobe.Result]], batch: int, settings: Settings
) -> list[Row]:
    """Return images a second, and the ratio to one process round by round."""
    made = []
    for n, results in found.items():
        rate = [len(result.images) / result.provenance.seconds for result in results]
        base = [len(result.images) / result.provenance.seconds for result in found[1]]
        spread = quartiles([a / b for a, b in zip(rate, base, strict=True)])
        note = f"{places(settings)} cores or devices"
        about = {"case": title, "provider": f"{n} processes", "quantity": "rate", "note": note}
        facts = {"value": float(np.median(rate)), "unit": "images/s", "rounds": len(rate)}
        facts |= {"images": len(results[0].images), "batch": batch}
        made.append(row(settings, section="scaling", **about, **facts, **spread))
    return made
