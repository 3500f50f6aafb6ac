"""Verdicts of a comparison as tables for a terminal."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from attnprobe import claims
from attnprobe.comparison import Comparison
from attnprobe.comparison.verdicts import NOBODY
from attnprobe.frames import rows
from attnprobe.report.comparing import legible_comparison

STYLES = {
    claims.SUPPORTED: "green",
    claims.CONTRADICTED: "red",
    claims.UNDECIDED: "dim",
}
MOST_PAIRS = 3  # whose statements are printed; more are in the tables and on the page


def verdict_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield a table of claims against models, and one of the claims about pairs."""
    comparison = legible_comparison(comparison)
    yield _alone(comparison)
    if len(comparison.results) <= MOST_PAIRS:
        yield _between(comparison)


def _alone(comparison: Comparison) -> Table:
    frame = comparison.tables["verdicts"]
    images = comparison.results[0].provenance.images
    table = _table(f"{images} images; layers are counted from 1")
    table.add_column("claim")
    for result in comparison.results:
        table.add_column(Text(result.name, overflow="fold"))
    for name, part in frame.loc[frame["model_b"] == NOBODY].groupby("claim", sort=True):
        cells = [_cell(row) for row in rows(part.sort_values("model_a"))]
        table.add_row(claims.load(str(name)).title, *cells)
    return table


def _cell(row: object) -> Text:
    verdict, evidence = str(row.verdict), str(row.evidence)  # type: ignore[attr-defined]
    return Text.assemble((verdict, STYLES[verdict]), "\n", (evidence, "dim"), "\n")


def _between(comparison: Comparison) -> Table:
    frame = comparison.tables["verdicts"]
    table = _table("")
    table.add_column("between models")
    table.add_column("", no_wrap=True)
    for row in rows(frame.loc[frame["model_b"] != NOBODY]):
        verdict = str(row.verdict)
        words = Text.assemble(row.statement, "\n", (str(row.evidence), "dim"))
        table.add_row(words, Text(verdict, STYLES[verdict]))
    return table


def _table(caption: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        caption=Text(caption, style="dim") if caption else None,
        caption_justify="left",
    )
