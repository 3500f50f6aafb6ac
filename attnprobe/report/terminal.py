"""Results and model cards as tables for a terminal of 80 to 100 columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnprobe.results import Result
from attnprobe.types import LoadLedger

ABSENT = DASH = "\N{EN DASH}"
PERCENT = 100
QUANTITIES = (("distance", "Distance"), ("entropy", "Entropy"), ("head_kl", "Head KL"))
ROOMY = 10_000


@dataclass(frozen=True)
class Column:
    """One column of the layer table.

    Attributes:
        heading: Two lines: the quantity and its unit or part.
        cells: Text of each layer.
        rank: Columns of the highest rank go first when the terminal is narrow.
    """

    heading: str
    cells: list[str]
    rank: int = 0


def layer_table(result: Result, width: int = 100) -> Table:
    """One row a layer: the mean of each metric, intervals, and the range of its heads.

    Layers are counted from 1; quantities that were not measured have no column, and a
    terminal narrower than the table loses the least important columns.
    """
    columns = _columns(result)
    table = _layers(result, columns)
    for rank in sorted({column.rank for column in columns} - {0}, reverse=True):
        if Console(width=ROOMY).measure(table).maximum <= width:
            break
        columns = [column for column in columns if column.rank < rank]
        table = _layers(result, columns)
    return table


def _columns(result: Result) -> list[Column]:
    layers = result.layers["layer"].tolist()
    columns = [Column("\nLayer", [str(layer + 1) for layer in layers])]
    for metric, heading in QUANTITIES:
        columns += _mean_columns(result, metric, heading, layers)
    return [*columns, *_last_cka(result, layers), *_prefix(result, layers)]


def _layers(result: Result, columns: list[Column]) -> Table:
    images = result.provenance.images
    note = f"{images} image{'' if images == 1 else 's'}; layers are counted from 1"
    table = Table(
        title=Text(result.name, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=Text(note, style="dim"),
        caption_justify="left",
    )
    for column in columns:
        table.add_column(Text(column.heading), justify="right", no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def card_table(model: dict[str, Any]) -> Table:
    """A model card with what was assumed and what became of the checkpoint's tensors."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in model.items():
        if key not in ("ledger", "assumed"):
            table.add_row(key.replace("_", " "), Text(_plain(value)))
    table.add_row("tensors", Text(_ledger(model.get("ledger", {}))))
    for text in model.get("assumed", ()):
        table.add_row("assumed", Text(str(text), style="yellow"))
    return table


def aligned(values: Sequence[float | None], digits: int = 3) -> list[str]:
    """Numbers with the same count of decimals, so that their points stand in one line.

    >>> aligned([7.3, 116.49], digits=4)
    ['7.3', '116.5']
    """
    known = [abs(value) for value in values if value is not None and not pd.isna(value)]
    top = max(known, default=0)
    whole = len(f"{top:.0f}") if top >= 1 else 1
    places = max(0, digits - whole)
    return [
        ABSENT if value is None or pd.isna(value) else f"{value:.{places}f}" for value in values
    ]


def _mean_columns(result: Result, metric: str, heading: str, layers: list[int]) -> list[Column]:
    means = result.tables.get("layer_means", pd.DataFrame())
    means = means if means.empty else means[means["metric"] == metric]
    if means.empty:
        return []
    rows = means.set_index("layer").reindex(layers)
    unit = str(means["unit"].iloc[0])
    ends = aligned([*rows["value"], *rows["low"], *rows["high"]])
    count = len(layers)
    value, low, high = ends[:count], ends[count : 2 * count], ends[2 * count :]
    near = metric == "distance"
    columns = [Column(f"{heading}\n{unit}", value)]
    if rows["low"].notna().any():
        rank = 2 if near else 4
        columns.append(Column("95 %\ninterval", _pairs(low, high, "[{}, {}]"), rank))
    if near:
        ends = aligned([*rows["head_min"], *rows["head_max"]])
        columns.append(
            Column("head\nrange", _pairs(ends[:count], ends[count:], "{}" + DASH + "{}"))
        )
    if rows["fraction"].notna().any():
        cells = [_percent(part) for part in rows["fraction"]]
        columns.append(Column("of\nunif.", cells, 1 if near else 5))
    return columns


def _last_cka(result: Result, layers: list[int]) -> list[Column]:
    cka = result.tables.get("cka")
    if cka is None or cka.empty:
        return []
    last = cka[cka["layer_b"] == cka["layer_b"].max()].set_index("layer_a")["value"]
    return [Column("CKA\nlast", aligned(last.reindex(layers).tolist()))]


def _prefix(result: Result, layers: list[int]) -> list[Column]:
    """Prefix mass as `layer_means` gives it, or nothing."""
    means = result.tables.get("layer_means", pd.DataFrame())
    if means.empty:
        return []
    mine = means[means["metric"].str.startswith("prefix_mass")]
    if "token" in mine.columns:
        mine = mine.assign(metric=mine["token"].fillna("prefix"))
    return [
        Column(f"{str(name).rpartition(':')[2].replace('_mass', '')}\n%", _shares(rows, layers), 3)
        for name, rows in mine.groupby("metric", sort=False)
    ]


def _shares(rows: pd.DataFrame, layers: list[int]) -> list[str]:
    values = rows.set_index("layer")["value"].reindex(layers) * PERCENT
    return aligned(values.tolist())


def _pairs(first: list[str], second: list[str], form: str) -> list[str]:
    wide = [max((len(text) for text in part), default=0) for part in (first, second)]
    return [
        ABSENT if ABSENT in (a, b) else form.format(a.rjust(wide[0]), b.rjust(wide[1]))
        for a, b in zip(first, second, strict=True)
    ]


def _percent(part: float) -> str:
    return ABSENT if pd.isna(part) else f"{PERCENT * part:.0f}%"


def _ledger(ledger: dict[str, Any]) -> str:
    counts = {kind: len(ledger.get(kind, ())) for kind in LoadLedger().counts()}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _plain(value: Any) -> str:
    form: Callable[[Any], str] = str
    if isinstance(value, bool) or value in (None, ""):
        return ABSENT if value in (None, "") else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(form(item) for item in value)
    return form(value)
