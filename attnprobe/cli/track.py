"""attnprobe track: how attention changes over the checkpoints of one training run."""

from pathlib import Path
from typing import Any

import click

from attnprobe.cli import _options, _texts

JSON = """With --json: {out, name, word, steps, source, runs, skipped, changes: [{metric, layer,
value_first, value_last, change, low, high, p, q, ...}], settled: [{metric, layer, step, ...}]};
layers count from 0 there. Values by step are in OUT/tables."""


@click.command(name="track", epilog=JSON)
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT CHECKPOINT...")
@click.option(
    "--steps",
    metavar="N,N,...",
    callback=_texts.steps,
    help="Where each CHECKPOINT stands, in the same order.  [default: the epoch that it says it "
    "was saved after, else the number in its name]",
)
@_options.measuring
@_options.conventions
@_options.loading
@_options.out("runs/track-NAME")
@_options.overwrite
@_options.resume
@_options.config
@_options.as_json
def command(checkpoints: tuple[str, ...], out: Path | None, **values: Any) -> int:
    """Measure the CHECKPOINTs of one training run and follow them through it.

    A CHECKPOINT is a file, a name (as in `attnprobe analyze`) or the folder of a saved run; all
    are measured on the same images. Writes one run folder a checkpoint, tables by step and layer,
    and report.html, which plays them. What is finished outlives an interruption: see --resume.

    \b
    attnprobe track runs/ckpt_epoch_*.pth -i photos/ --limit 200 --name SimMIM
    attnprobe track early.pth late.pth --steps 10,300 -o runs/track-mine --resume
    """
    from attnprobe.cli import _track

    flags = {name: values.pop(name) for name in ("overwrite", "resume", "as_json")}
    return _track.run(checkpoints, values, out=out, **flags)
