"""Every benchmark by one command.

    python benchmarks/run.py                                   all sections on this CPU
    python benchmarks/run.py overhead peers --rounds 9         two sections
    python benchmarks/run.py --device cuda --precision bf16 --batch 64
    python benchmarks/page.py                                  docs/benchmarks.md from the rows

Each section checks numbers first and refuses to time what disagrees. Rows are appended to
benchmarks/results.csv case by case, with device, versions, commit and date.
"""

import os
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")

import click
import torch
from _common import CLOCKS, PRECISIONS, SIZES, Settings
from _rows import RESULTS, append, show

import attnprobe

SECTIONS = ("overhead", "peers", "cka", "memory", "scaling", "files", "kernels")


@click.command(help=__doc__)
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS))
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(list(PRECISIONS)), default="fp32", show_default=True)
@click.option("--batch", default=0, help="Images a forward pass; 0 leaves it to the case.")
@click.option("--images", default=0, help="Images a run; 0 leaves it to the case.")
@click.option("--rounds", default=0, help="Rounds; 0 leaves it to the case.")
@click.option(
    "--memory", default=8.0, show_default=True, help="GiB beyond the model, in section memory."
)
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True)
@click.option("--size", type=click.Choice(SIZES), default="full", show_default=True)
@click.option("--quick", is_flag=True, help="--size quick: below three minutes on one core.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), show_default="there")
@click.option("--save/--no-save", default=True, show_default=True)
def main(
    sections: tuple[str, ...], results: Path, *, quick: bool, save: bool, **values: Any
) -> None:
    """Run sections; print rows and append them to results.csv."""
    warnings.simplefilter("ignore")
    settings = Settings(**({**values, "size": "quick"} if quick else values))
    failed = []
    for name in sections or SECTIONS:
        started = time.perf_counter()
        print(f"--- {name} (load {os.getloadavg()[0]:.2f}, {torch.get_num_threads()} threads)")
        try:
            for found in import_module(f"bench_{name}").run(settings):
                for row in found:
                    show(row)
                if save:
                    append(found, results)
        except (click.ClickException, attnprobe.AttnprobeError, RuntimeError, OSError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
        print(f"--- {name}: {time.perf_counter() - started:.0f} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
