"""attnprobe figures: vector figures and LaTeX tables of saved runs, for a paper."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from attnprobe.cli import _options, _texts

FOLDER = "attnprobe-figures"


@click.command(name="figures")
@click.argument("runs", nargs=-1, required=True, type=_options.Plain, metavar="RUN...")
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    default=("pdf",),
    show_default=True,
    metavar="FORMAT",
    callback=_texts.listed,
    help="pdf, svg or png; for several repeat or use commas.",
)
@click.option(
    "--plot",
    "plots",
    multiple=True,
    metavar="NAME",
    callback=_texts.listed,
    help="Plot to draw; for several repeat or use commas.  [default: all that apply]",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    callback=_texts.labels,
    help="Label of a model; repeat, one for each RUN in turn.",
)
@click.option(
    "--width",
    default="text",
    show_default=True,
    help="column (3.25 inches), text (6.75 inches) or inches.",
)
@click.option(
    "--font",
    default="serif",
    show_default=True,
    help="serif, sans or a font family of this machine.",
)
@click.option(
    "--font-size", "size", default=8.0, show_default=True, type=float, help="Type size in points."
)
@_options.out(FOLDER)
@_options.overwrite
@_options.as_json
def command(
    runs: tuple[Path, ...],
    names: tuple[str, ...],
    plots: tuple[str, ...],
    out: Path | None,
    *,
    as_json: bool,
    **how: Any,
) -> int:
    """Write the figures and tables of saved RUN folders for a paper.

    RUN is the folder of an analysis, or of several, or of one comparison or track. Writes the
    figures of its page as vector files, LaTeX (booktabs) tables and captions. Needs neither
    weights nor torch, but Chrome or Chromium, and `pip install 'attnprobe[figures]'`.

    \b
    attnprobe figures runs/mae runs/simmim --name MAE --name SimMIM -o paper/attention
    attnprobe figures runs/compare-mae-simmim -o paper/comparison
    attnprobe figures runs/mae --width column --format pdf,png --plot distance
    """
    from attnprobe.cli._console import put_json, say
    from attnprobe.publication import publish

    folder = out or Path(FOLDER)
    paths = publish(_subject(runs, names), folder, plots=plots or None, **how)
    files = [str(path.relative_to(folder.resolve())) for path in paths]
    say(f"wrote {folder}: {', '.join(files)}")
    if as_json:
        put_json({"folder": str(folder), "files": files})
    return 0


def _subject(runs: tuple[Path, ...], names: tuple[str, ...]) -> Any:
    """Return the comparison or track that the one folder holds, or else the results."""
    from attnprobe.comparison import Comparison, compare
    from attnprobe.results import Result
    from attnprobe.results.manifest import kind_of
    from attnprobe.tracking import Track

    kind = kind_of(runs[0]) if len(runs) == 1 else "result"
    if kind == "track":
        return Track.load(runs[0])
    if kind == "comparison":
        found = Comparison.load(runs[0])
        named = _named(list(found.results), names)
        return compare(named, options=found.options) if names else found
    return _named([Result.load(run) for run in runs], names)


def _named(results: list[Any], names: tuple[str, ...]) -> list[Any]:
    """Results under the labels given for them."""
    if names and len(names) != len(results):
        raise click.UsageError(f"{len(names)} names for {len(results)} models; give one for each")
    labels = names or [result.name for result in results]
    return [replace(each, name=label) for each, label in zip(results, labels, strict=True)]
