"""A training step of ours against the official code's: same weights, images and masks.

    python benchmarks/bench_step.py --simmim DIR --mae DIR --batch 4 --rounds 7

A step is forward, backward, clipping and AdamW. Both sides run in one process, turn by turn, and
every round gives one ratio; the median and the quartiles of the ratios are printed and appended
to benchmarks/results.csv. It refuses to time sides whose losses differ.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import timm
import torch
from _common import Settings
from _rows import append, quartiles, row
from official_parity import FOLDER, PROGRESS, Case, cases, draw, exported, official_loss
from timm.optim import create_optimizer_v2
from torch import nn

from attnprobe import objectives
from attnprobe.objectives import Batch

CLIP, RATE, DECAY = 5.0, 1e-4, 0.05
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def step(
    module: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[], Any], half: Any
) -> float:
    """Run one update; return the loss."""
    optimizer.zero_grad(set_to_none=True)
    device = next(module.parameters()).device.type
    with torch.autocast(device, half or torch.bfloat16, enabled=half is not None):
        loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), CLIP)
    optimizer.step()
    return loss.item()


def sides(case: Case, device: str, half: Any) -> tuple[dict[str, Callable[[], float]], Batch]:
    """Return one update of either side, from the same weights."""
    torch.manual_seed(0)
    ours = case.ours()
    theirs = case.official()
    theirs.load_state_dict(exported(case, ours.state_dict()), strict=True)
    ours, theirs = ours.to(device).train(), theirs.to(device).train()
    batch = {name: value.to(device) for name, value in draw(case, torch.float32).items()}
    objective = objectives.load(case.objective)
    our_optimizer = create_optimizer_v2(ours, "adamw", lr=RATE, weight_decay=DECAY)
    grouped = timm.optim.param_groups_weight_decay(theirs, DECAY)
    their_optimizer = torch.optim.AdamW(grouped, lr=RATE)
    return {
        "official": lambda: step(
            theirs, their_optimizer, lambda: official_loss(case, theirs, batch, 0.99), half
        ),
        "attnprobe": lambda: step(
            ours, our_optimizer, lambda: objective.step(ours, batch, PROGRESS)["loss"], half
        ),
    }, batch


def measure(
    case: Case, device: str, half: Any, rounds: int, *, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the seconds of every update of either side, turn by turn."""
    timed, _ = sides(case, device, half)
    losses = {name: update() for name, update in timed.items()}
    tolerance = 1e-4 if half is None else 2e-2
    if abs(losses["official"] - losses["attnprobe"]) > tolerance * abs(losses["official"]):
        raise click.ClickException(f"{case.name}: losses differ, nothing was timed: {losses}")
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(rounds + 1):
        order = list(timed) if turn % 2 else list(timed)[::-1]
        for name in order:
            started = clock()
            timed[name]()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def rows(case: Case, told: str, seconds: dict[str, list[float]]) -> list[dict[str, object]]:
    """Print and return one row a side."""
    found = []
    settings = Settings(device=told.split()[0], precision=told.split()[1].rstrip(","))
    for name, taken in seconds.items():
        ratios = quartiles([a / b for a, b in zip(taken, seconds["official"], strict=True)])
        low, middle, high = (ratios[key] for key in ("q1", "ratio", "q3"))
        median = statistics.median(taken)
        print(
            f"{case.name:32s} {told} {name:10s} {case.batch / median:8.2f} images/s  "
            f"x{middle:.3f} [{low:.3f}, {high:.3f}] of the official step's time",
            flush=True,
        )
        about = {"section": "step", "case": case.architecture, "quantity": "one update"}
        facts = {"images": case.batch, "batch": case.batch, "rounds": len(taken)}
        facts |= {"provider": f"{case.objective} step {told}: {name}", "value": median, "unit": "s"}
        found.append(row(settings, **about, **facts, **ratios))
    return found


@click.command()
@click.option("--simmim", type=FOLDER, help="Checkout of microsoft/SimMIM.")
@click.option("--mae", type=FOLDER, help="Checkout of facebookresearch/mae.")
@click.option("--swin", type=FOLDER, help="Checkout of microsoft/Swin-Transformer.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--precision", multiple=True, type=click.Choice(list(PRECISIONS)), help="Both.")
@click.option(
    "--clock",
    type=click.Choice(list(CLOCKS)),
    default="wall",
    show_default=True,
    help="cpu: seconds of this process, which others on the machine disturb less.",
)
@click.option("--threads", default=0, help="Threads of torch; 0 leaves its own choice.")
@click.option("--only", default="", help="Only cases whose name contains this.")
@click.option("--save/--no-save", default=True, show_default=True)
def main(
    device: str,
    batch: int,
    rounds: int,
    precision: tuple[str, ...],
    *,
    only: str,
    clock: str,
    threads: int,
    save: bool,
    **folders: Path | None,
) -> None:
    """Time our training step against the official one."""
    warnings.simplefilter("ignore")
    if threads:
        torch.set_num_threads(threads)
    print(f"load before: {os.getloadavg()[0]:.2f}")
    for case, _ in cases({**folders, "mocov3": None}):
        if only not in case.name:
            continue
        vars(case)["batch"] = batch
        for name in precision or PRECISIONS:
            seconds = measure(case, device, PRECISIONS[name], rounds, clock=CLOCKS[clock])
            told = f"{device} {name}" + (", cpu seconds" if clock == "cpu" else "")
            found = rows(case, told, seconds)
            if save:
                append(found)
    print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
