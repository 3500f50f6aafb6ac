"""attnprobe reproduce: the paper's finding, trained and measured by one command."""

from pathlib import Path
from typing import Any

import click

from attnprobe.cli import _options, _texts


@click.command(name="reproduce")
@click.option("-d", "--data", required=True, help="Labelled training images, as of pretrain.")
@click.option("--val", required=True, help="Labelled held-out images, which are measured too.")
@click.option(
    "--budget",
    default="cpu",
    show_default=True,
    help="cpu, gpu, smoke to try it, or a TOML file that changes one of them.",
)
@click.option(
    "--methods",
    multiple=True,
    callback=_texts.listed,
    help="Only these of simmim, mae, mocov3, supervised; with --resume, these too.",
)
@click.option(
    "--seeds",
    default=0,
    type=click.IntRange(0, 100),
    help="Trainings of each of them.  [default: as the budget says]",
)
@click.option(
    "--epochs",
    default=0,
    type=click.IntRange(0, 10**6),
    help="Epochs of each training, not of fine-tuning; of added methods where some are named.  "
    "[default: as the budget says]",
)
@click.option(
    "--jobs", default=0, type=click.IntRange(0), help="Steps at a time.  [default: 1; 5 on a GPU]"
)
@click.option(
    "--workers",
    default=-1,
    type=click.IntRange(-1),
    help="Decoding processes of each.  [default: by cores]",
)
@click.option("--dry-run", is_flag=True, help="Time a few updates, print the plan, and stop.")
@click.option("--estimate/--no-estimate", default=True, help="Time a few updates first.")
@click.option("--page/--no-page", default=True, help="Draw the page at the end.")
@_options.out("runs/reproduce")
@_options.resume
@_options.as_json
def command(data: str, val: str, budget: str, out: Path | None, **values: Any) -> int:
    """Train SimMIM, MAE, MoCo v3 and a supervised ViT, measure them, and check the paper.

    One architecture, the same images; three seeds of the headline pair unless told otherwise.
    Fine-tunes each, the pair also without its last blocks. Everything that is finished outlives
    an interruption: --resume goes on with the study as it is, and --methods and --seeds add to it.

    \b
    attnprobe reproduce -d cifar10_train.npz --val cifar10_test.npz --budget gpu
    attnprobe reproduce -d photos/train --val photos/val --dry-run
    attnprobe reproduce -d photos/train --val photos/val --methods simmim,supervised --seeds 3
    """
    from attnprobe.cli import _reproduce

    return _reproduce.run(data, val, budget, out or Path("runs", "reproduce"), **values)
