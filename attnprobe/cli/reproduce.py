"""attnprobe reproduce: the paper's finding, trained and measured by one command."""

from pathlib import Path

import click

from attnprobe.cli import _options


@click.command(name="reproduce")
@click.option("-d", "--data", required=True, help="Labelled training images, as of pretrain.")
@click.option("--val", required=True, help="Labelled held-out images, which are measured too.")
@click.option("--budget", default="cpu", show_default=True, help="cpu, gpu, or smoke to try it.")
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
def command(data: str, val: str, budget: str, out: Path | None, **values: bool) -> int:
    """Train SimMIM, MAE, MoCo v3 and a supervised ViT, measure them, and check the paper.

    One architecture, the same images; three seeds of the headline pair. Fine-tunes each, also
    without its last blocks. Everything that is finished outlives an interruption: --resume.

    \b
    attnprobe reproduce -d cifar10_train.npz --val cifar10_test.npz --budget gpu
    attnprobe reproduce -d photos/train --val photos/val --dry-run
    """
    from attnprobe.cli import _reproduce

    return _reproduce.run(data, val, budget, out or Path("runs", "reproduce"), **values)
