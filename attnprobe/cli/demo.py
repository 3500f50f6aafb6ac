"""attnprobe demo: the main job on what ships in the box."""

import sys
import webbrowser
from pathlib import Path

import click

from attnprobe.cli import _options, compare

CHECKPOINTS = {"SimMIM": "vit_mini_cifar10_simmim", "Supervised": "vit_mini_cifar10_supervised"}
FOLDER = "attnprobe-demo"


@click.command(name="demo")
@_options.out(FOLDER)
@_options.overwrite
@click.option(
    "--open/--no-open",
    "opened",
    default=None,
    help="Show the page in a browser.  [default: where there is a terminal]",
)
@_options.as_json
def command(out: Path | None, *, overwrite: bool, opened: bool | None, as_json: bool) -> int:
    """Compare a masked-image model with a supervised one, both in the box.

    Two small ViTs, trained alike on the same images, measured on the bundled photographs; no
    network, under a minute. The page opens in a browser.
    """
    place = out or Path(FOLDER)
    words = [*CHECKPOINTS.values(), "--images", "bundled", "--out", str(place)]
    words += ["--threshold", "last=2"]  # of six layers: three would reach into the middle
    words += [word for name in CHECKPOINTS for word in ("--name", name)]
    words += ["--overwrite"] * overwrite + ["--json"] * as_json
    with compare.command.make_context("compare", words) as context:
        code = compare.command.invoke(context)
    if sys.stdout.isatty() if opened is None else opened:
        webbrowser.open((place / "report.html").resolve().as_uri())
    return code
