"""Results and model cards as tables for a terminal of 80 to 100 columns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeGuard

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnprobe.frames import layer_means, rows
from attnprobe.report.legible import legible, legible_result
from attnprobe.results import Result
from attnprobe.types import LoadLedger

ABSENT = DASH = "\N{EN DASH}"
PERCENT = 100
QUANTITIES = (("distance", "Distance"), ("entropy", "Entropy"), ("head_kl", "Head KL"))
MOST_PLACES = 6
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
    terminal narrower than the table loses space between columns, then the least important ones.
    """
    result = legible_result(result)
    columns = _columns(result)
    ranks = sorted({column.rank for column in columns}, reverse=True)
    for most, gap in product(ranks, (1, 0)):
        table = _layers(result, [c for c in columns if c.rank <= most], gap)
        if Console(width=ROOMY).measure(table).maximum <= width:
            return table
    return _layers(result, [c for c in columns if not c.rank], 0)


def _columns(result: Result) -> list[Column]:
    layers = result.layers["layer"].tolist()
    columns = [Column("\nLayer", [str(layer + 1) for layer in layers])]
    for metric, heading in QUANTITIES:
        columns += _mean_columns(result, metric, heading, layers)
    return [*columns, *_last_cka(result, layers), *_prefix(result, layers)]


def _layers(result: Result, columns: list[Column], gap: int) -> Table:
    images = result.provenance.images
    note = f"{images} image{'' if images == 1 else 's'}; layers are counted from 1"
    table = Table(
        title=Text(result.name, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, gap, 0, 0),
        pad_edge=False,
        show_edge=False,
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
    model = legible(model)
    for key, value in model.items():
        if key not in ("ledger", "assumed"):
            table.add_row(Text(key.replace("_", " ")), Text("\n".join(_lines(value))))
    table.add_row("tensors", Text(_ledger(model.get("ledger", {}))))
    for text in model.get("assumed", ()):
        table.add_row("assumed", Text(str(text), style="yellow"))
    return table


def aligned(values: Sequence[float | None], digits: int = 3, least: int = 0) -> list[str]:
    """Numbers with the same count of decimals, so that their points stand in one line.

    Args:
        values: Numbers, None or NaN for what was not measured.
        digits: Digits of the largest number.
        least: Decimals that are always shown.

    >>> aligned([7.3, 116.49], least=1)
    ['7.3', '116.5']
    """
    top = max((abs(value) for value in values if _number(value)), default=0.0)
    first = math.floor(math.log10(top)) if top > 0 else 0  # place of the leading digit
    places = min(MOST_PLACES, max(least, digits - 1 - first))
    return [f"{value:.{places}f}" if _number(value) else ABSENT for value in values]


def _mean_columns(result: Result, metric: str, heading: str, layers: list[int]) -> list[Column]:
    means = {row.layer: row for row in rows(layer_means(result, metric))}
    if not means:
        return []
    units = {row.unit for row in means.values()}

    def of(name: str) -> list[float | None]:
        return [getattr(means.get(layer), name, None) for layer in layers]

    near, count = metric == "distance", len(layers)
    ends = aligned([*of("value"), *of("low"), *of("high")], least=int(near))
    columns = [Column(f"{heading}\n{', '.join(units)}", ends[:count])]
    if any(map(_number, of("low"))):
        cells = _pairs(ends[count : 2 * count], ends[2 * count :], "[{}, {}]")
        columns.append(Column("95 %\ninterval", cells, 2 if near else 4))
    if near:
        ends = aligned([*of("head_min"), *of("head_max")], least=1)
        cells = _pairs(ends[:count], ends[count:], "{}" + DASH + "{}")
        columns.append(Column("head\nrange", cells))
    if any(map(_number, of("fraction"))):
        cells = [_percent(part) for part in of("fraction")]
        columns.append(Column("of\nunif.", cells, 1 if near else 5))
    return columns


def _number(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def _last_cka(result: Result, layers: list[int]) -> list[Column]:
    pairs = list(rows(result.tables.get("cka", pd.DataFrame())))
    last = max((row.layer_b for row in pairs), default=None)
    values = {row.layer_a: row.value for row in pairs if row.layer_b == last}
    return [Column("CKA\nlast", aligned([values.get(n) for n in layers]))] if pairs else []


def _prefix(result: Result, layers: list[int]) -> list[Column]:
    """Attention of patches on all prefix tokens together, in percent."""
    shares = {row.layer: PERCENT * row.value for row in rows(layer_means(result, "prefix_mass"))}
    cells = aligned([shares.get(layer) for layer in layers])
    return [Column("Prefix\n%", cells, 3)] if shares else []


def _pairs(first: list[str], second: list[str], form: str) -> list[str]:
    wide = [max((len(text) for text in part), default=0) for part in (first, second)]
    return [
        ABSENT if ABSENT in (a, b) else form.format(a.rjust(wide[0]), b.rjust(wide[1]))
        for a, b in zip(first, second, strict=True)
    ]


def _percent(part: float | None) -> str:
    return f"{part:.0%}" if _number(part) else ABSENT


def _ledger(ledger: dict[str, Any]) -> str:
    counts = {kind: len(ledger.get(kind, ())) for kind in LoadLedger().counts()}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _lines(value: Any) -> list[str]:
    """An entry as text, one line for each key of a mapping."""
    if isinstance(value, dict) and value:
        return [f"{key} = {_plain(item)}" for key, item in value.items()]
    return [_plain(value)]


def _plain(value: Any) -> str:
    form: Callable[[Any], str] = str
    if isinstance(value, bool) or value in (None, ""):
        return ABSENT if value in (None, "") else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(form(item) for item in value)
    return form(value)
