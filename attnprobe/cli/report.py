"""attnprobe report: draw the page of a saved run again."""

from pathlib import Path

import click

from attnprobe.cli import _options


@click.command(name="report")
@click.argument("run", type=_options.Plain)
@_options.out("RUN/report.html")
@_options.overwrite
def command(run: Path, out: Path | None, *, overwrite: bool) -> int:
    """Write the page of a saved RUN again.

    RUN is the folder of an analysis, a comparison, a track, a training or a study; the last two
    may be under way. Needs neither weights nor torch.

    \b
    attnprobe report runs/simmim_vit_base -o simmim.html
    attnprobe report runs/compare-mae-deit
    attnprobe report runs/my-pretraining
    attnprobe report runs/reproduce
    """
    from attnprobe.cli._console import say
    from attnprobe.report import page_of, write

    # the page inside a run folder is derived from its tables: replacing it loses nothing
    path = write(page_of(run), out or run / "report.html", overwrite=overwrite or out is None)
    say(f"wrote {path}")
    return 0
