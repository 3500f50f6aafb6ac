"""Opening a ViT-B of 86 M parameters: time and memory beside `torch.load` alone.

Every figure is a median over fresh processes, the file in the page cache; memory is the
resident set's high-water mark beyond that of the imports. `python benchmarks/opening.py`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import timm
import torch
from _child import forget_peak, resident
from safetensors.torch import load_file, save_file

from attnprobe.checkpoints import load

ROUNDS = 5


def saved(folder: Path) -> tuple[Path, Path]:
    """Write the same weights as torch and safetensors files."""
    torch.manual_seed(0)
    state = timm.create_model("vit_base_patch16_224", pretrained=False).state_dict()
    torch.save({"model": state}, folder / "vit_base.pth")
    save_file(state, folder / "vit_base.safetensors")
    return folder / "vit_base.pth", folder / "vit_base.safetensors"


def bare(path: Path) -> None:
    """Open a file as the libraries alone do, to tensors in memory and not in a map."""
    if path.suffix == ".safetensors":
        copies = {name: tensor.clone() for name, tensor in load_file(path).items()}
    else:
        copies = torch.load(path, weights_only=True)
    del copies


OPENERS = {"library": bare, "attnprobe": load}


def measure(opener: str, path: Path) -> dict[str, float]:
    """Open a file once, in this process."""
    warnings.simplefilter("ignore")
    small = path.with_name("warm.pth")
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), small)
    OPENERS[opener](small)  # late imports do not count
    path.read_bytes()
    forget_peak()
    before = resident()
    wall, busy = time.perf_counter(), time.process_time()
    held = OPENERS[opener](path)
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - busy}
    del held
    return found | {"peak": resident("VmHWM") - before}


def apart(opener: str, path: Path) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), opener, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table of medians and of ratios to the library alone."""
    with tempfile.TemporaryDirectory() as folder:
        print("| file | opened by | wall s | cpu s | peak / file | wall ratio | cpu ratio |")
        print("|---|---|---|---|---|---|---|")
        for path in saved(Path(folder)):
            rounds = [{name: apart(name, path) for name in OPENERS} for _ in range(ROUNDS)]
            middle = {
                name: {
                    what: statistics.median(turn[name][what] for turn in rounds)
                    for what in ("wall", "cpu", "peak")
                }
                for name in OPENERS
            }
            for name, found in middle.items():
                share = found["peak"] / path.stat().st_size
                ratios = [found[what] / middle["library"][what] for what in ("wall", "cpu")]
                print(
                    f"| {path.name} | {name} | {found['wall']:.3f} | {found['cpu']:.3f} "
                    f"| {share:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |"
                )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
