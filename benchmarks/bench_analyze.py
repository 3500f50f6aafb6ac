"""analyze against the bare forward pass: same model, same tensors, one run, interleaved.

    python benchmarks/bench_analyze.py --model vit_base_patch16_224 --batch 8 --rounds 7

Prints the median and the quartiles of the ratio to the bare pass, round by round, and appends a
row a provider to benchmarks/results.csv with the device, versions and commit. It refuses to
time a kernel that disagrees with float64. Weights are random: cost does not depend on them.
"""

import csv
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import timm
import torch
from torch import nn

import attnprobe
from attnprobe import doctor
from attnprobe.types import CheckpointSpec, LoadLedger

RESULTS = Path(__file__).parent / "results.csv"
STATISTICS = ("distance", "entropy", "head_kl")
DEFAULT = (*STATISTICS, "prefix_mass", "cka")
Provider = Callable[[], object]


def providers(model: nn.Module, images: torch.Tensor) -> dict[str, Provider]:
    """Return what is timed, by name; the first is the floor."""
    spec = CheckpointSpec("bench", "bench", input_size=tuple(images.shape[1:]))
    loaded = attnprobe.LoadedModel(spec, model, LoadLedger())

    def bare() -> object:
        with torch.inference_mode():
            return [model(batch) for batch in images.split(batch_size)]

    def capture() -> object:
        with torch.inference_mode(), attnprobe.capture(model, skip, skip):
            return [model(batch) for batch in images.split(batch_size)]

    def analyze(metrics: tuple[str, ...]) -> Provider:
        return lambda: attnprobe.analyze(loaded, images, metrics, batch_size=batch_size)

    def skip(record: object) -> None:
        del record

    batch_size = 8
    return {
        "bare forward": bare,
        "capture only": capture,
        "analyze: distance, entropy, head_kl": analyze(STATISTICS),
        "analyze: all five metrics": analyze(DEFAULT),
        "maps and pair loop": lambda: maps_and_pairs(model, images, batch_size),
    }


def maps_and_pairs(model: nn.Module, images: torch.Tensor, batch_size: int) -> list[object]:
    """What scripts do today: fused attention off, keep every map, loop over head pairs."""
    kept: list[torch.Tensor] = []
    sites = [m for m in model.modules() if hasattr(m, "attn_drop") and hasattr(m, "num_heads")]
    handles = [
        m.attn_drop.register_forward_hook(lambda _, args, out: kept.append(args[0])) for m in sites
    ]
    fused = [(m, m.fused_attn) for m in sites if hasattr(m, "fused_attn")]
    out: list[object] = []
    for module, _ in fused:
        module.fused_attn = False
    with torch.inference_mode():
        for batch in images.split(batch_size):
            kept.clear()
            model(batch)
            out += [pair_loop(weights) for weights in kept]
    for handle in handles:
        handle.remove()
    for module, value in fused:
        module.fused_attn = value
    return out


def pair_loop(weights: torch.Tensor) -> list[torch.Tensor]:
    """Entropy and KL of stored maps, one pair of heads at a time."""
    logs = weights.clamp(min=1e-12).log()
    heads = range(weights.shape[1])
    found = [-(weights * logs).sum(-1).mean((0, 2))]
    for a in heads:
        for b in heads:
            if a != b:
                gap = weights[:, a] * (logs[:, a] - logs[:, b])
                found.append(gap.sum(-1).mean())
    return found


def commit() -> str:
    """Return the short commit, marked when the tree differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../attnprobe"])
    return name.stdout.strip() + ("+" if dirty.returncode else "")


def processor() -> str:
    """Return the processor's name and the threads used."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def append(rows: list[dict[str, object]]) -> None:
    """Add rows to results.csv, with a header if it is new."""
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


@click.command()
@click.option("--model", default="vit_base_patch16_224", show_default=True)
@click.option("--images", default=8, show_default=True, help="Images in all, in batches of 8.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--only", help="Time only providers whose name contains this (and the floor).")
@click.option("--save/--no-save", default=True, show_default=True)
def main(model: str, images: int, rounds: int, only: str | None, *, save: bool) -> None:
    """Time analyze against the bare forward pass."""
    failed = [check.name for check in doctor.checks("cpu") if not check.passed]
    if failed:
        raise click.ClickException(f"kernels disagree with float64, nothing was timed: {failed}")
    torch.manual_seed(0)
    module = timm.create_model(model, pretrained=False).eval()
    x = torch.randn(images, *module.default_cfg["input_size"])
    timed = providers(module, x)
    timed = {k: v for k, v in timed.items() if only is None or only in k or k == "bare forward"}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for warm in range(rounds + 1):
        for name, provider in timed.items():
            started = time.perf_counter()
            provider()
            if warm:
                seconds[name].append(time.perf_counter() - started)
    rows = []
    for name, taken in seconds.items():
        ratios = sorted(a / b for a, b in zip(taken, seconds["bare forward"], strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(taken)
        print(f"{name:40s} {median:7.3f} s  x{middle:.3f} [{low:.3f}, {high:.3f}]")
        row = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "device": processor(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "model": model,
            "images": images,
            "batch": 8,
            "rounds": rounds,
            "provider": name,
            "seconds": round(median, 4),
            "ratio": round(middle, 4),
            "ratio_q1": round(low, 4),
            "ratio_q3": round(high, 4),
        }
        rows.append(row)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if save:
        append(rows)


if __name__ == "__main__":
    main()
