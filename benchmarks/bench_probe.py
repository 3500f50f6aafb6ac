"""What the attention probe costs a training at the default interval.

    python benchmarks/bench_probe.py --model vit_tiny_patch16_224 --img-size 32 --patch-size 4

Updates (forward, backward, AdamW) and probes of 64 images alternate in one process; the cost is
the median of probe / (interval * update), with its quartiles, appended to results.csv.
"""

import statistics
import tempfile
import time
from collections.abc import Callable

import click
import timm
import torch
from _common import Settings
from _rows import append, quartiles, row
from timm.optim import create_optimizer_v2

from attnprobe import AttentionProbe
from attnprobe.probing import suggested_interval

PROBED = 64


def seconds(call: Callable[[], object]) -> float:
    """Time one call, the device's work included."""
    begin = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


@click.command()
@click.option("--model", default="vit_tiny_patch16_224")
@click.option("--img-size", default=32)
@click.option("--patch-size", default=4)
@click.option("--batch", default=64)
@click.option("--rounds", default=7)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16")
def main(
    *, model: str, img_size: int, patch_size: int, batch: int, rounds: int, precision: str
) -> None:
    """Print and append the cost of the probe."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    module = timm.create_model(model, img_size=img_size, patch_size=patch_size).to(device)
    optimizer = create_optimizer_v2(module, "adamw", lr=1e-4)
    images = torch.randn(batch, 3, img_size, img_size, device=device)
    probed = torch.randn(PROBED, 3, img_size, img_size)

    def update() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = module(images).float().logsumexp(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    every = suggested_interval(PROBED, batch)
    with tempfile.TemporaryDirectory() as out:
        probe = AttentionProbe(module, probed, out=out, every=1, precision=precision)
        steps = iter(range(1, rounds + 2))
        update()
        probe(next(steps))
        pairs = [(seconds(update), seconds(lambda: probe(next(steps)))) for _ in range(rounds)]
    costs = quartiles([probe / (every * update) for update, probe in pairs])
    taken = statistics.median(update for update, _ in pairs)
    shown = f"probe of {PROBED} every {every} updates, {precision}"
    low, middle, high = (costs[name] for name in ("q1", "ratio", "q3"))
    print(f"{model} {img_size}: {shown}: {middle:.4f} [{low:.4f}, {high:.4f}] of the training")
    about = {"section": "probe", "case": f"{model}@{img_size}", "provider": shown}
    facts = {"images": PROBED, "batch": batch, "rounds": rounds, "quantity": "one update"}
    settings = Settings(device=device, precision=precision)
    append([row(settings, **about, **facts, value=taken, unit="s", **costs)])


if __name__ == "__main__":
    main()
