"""attnprobe export: write a training run in the format of the official code."""

from pathlib import Path

import click

from attnprobe.cli import _options


@click.command(name="export")
@click.argument("run", type=_options.Plain)
@click.option("--format", "layout", metavar="NAME", help="`attnprobe list exports`; by objective.")
@_options.out("RUN/NAME.pth")
@_options.overwrite
def command(run: Path, layout: str | None, out: Path | None, overwrite: bool) -> int:
    """Write the checkpoint of a training RUN for the official code, every key in place.

    \b
    attnprobe export runs/simmim -o simmim.pth
    """
    from attnprobe.cli._console import say
    from attnprobe.exports import export

    target = out or run / f"{run.resolve().name}.pth"
    written = export(run, target, layout, overwrite=overwrite)
    say(f"wrote {written}")
    return 0
