"""Heads against depth: one dot a head, the layer mean with its interval, the uniform value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from attnprobe.frames import known, layer_means, rows
from attnprobe.plots import PALETTE
from attnprobe.plots import _style as style
from attnprobe.results import Result

SPREAD = 0.6
Place = Callable[[Any], float]
MEAN = "mean of the layer's heads, 95 % interval"


@dataclass(frozen=True)
class DepthAxes:
    """What a heads-against-depth figure shows.

    Attributes:
        metric: Name of the metric in `layer_means`.
        table: Table with one value a head.
        quantity: Axis title without the unit.
    """

    metric: str
    table: str
    quantity: str


@dataclass(frozen=True)
class Marks:
    """How one series looks.

    Attributes:
        colour: Of marks, line and ribbon.
        name: In the legend.
        group: Series that the legend hides together.
        symbol: Shape of the marks.
        dash: Pattern of the line.
        size: Diameter of the marks.
    """

    colour: str
    name: str
    group: str
    symbol: str = "circle"
    dash: str = "solid"
    size: int = 10


def draw(results: list[Result], axes: DepthAxes) -> go.Figure:
    """Draw one panel a model with a common vertical axis."""
    figure = style.panels(results)
    unit = style.shared(results, axes.table)
    for index, result in enumerate(results):
        row, col = style.spot(results, index)
        for trace in _traces(result, axes, unit, PALETTE[index]):
            trace.showlegend = index == 0 and trace.name != "interval"
            figure.add_trace(trace, row=row, col=col)
    finish(figure, results, style.titled(axes.quantity, unit))
    return figure


def finish(figure: go.Figure, results: list[Result], title: str) -> None:
    """Number the layers, start values at zero and name the vertical axes.

    Each panel spans its own layers, so that models of different depth are equally readable and
    layers of equal relative depth stand at equal places.
    """
    for index, result in enumerate(results):
        row, col = style.spot(results, index)
        style.layer_axis(figure, len(result.layers), row=row, col=col)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title={"text": title}, col=1)


def _traces(result: Result, axes: DepthAxes, unit: str, colour: str) -> list[go.Scatter]:
    means = layer_means(result, axes.metric)
    heads = known(result.tables[axes.table], "value")
    marks = Marks(colour, "one head", "heads", size=6)
    return [
        *ribbon(means, colour, "mean"),
        *uniform(means),
        dots(heads, result, unit, marks),
        *mean_line(means, unit, Marks(colour, MEAN, "mean")),
    ]


def dots(heads: pd.DataFrame, result: Result, unit: str, marks: Marks) -> go.Scatter:
    """One dot a head, set off sideways by head number so that equal heads stay apart."""
    counts = {row.layer: row.heads for row in rows(result.layers)}
    each = list(rows(heads))
    return go.Scatter(
        name=marks.name,
        legendrank=2,
        legendgroup=marks.group,
        mode="markers",
        x=[sideways(row.layer + 1, row.head, counts[row.layer]) for row in each],
        y=[row.value for row in each],
        marker={
            "color": marks.colour,
            "size": marks.size,
            "opacity": 0.65,
            "symbol": marks.symbol,
        },
        hoverinfo="text",
        hovertext=[
            f"layer {row.layer + 1}, head {row.head + 1}<br>{_value(row, unit)}" for row in each
        ],
        customdata=[[row.layer, row.head] for row in each],
    )


def numbered(row: Any) -> float:
    """Return the place of a layer on an axis of layers."""
    return row.layer + 1


def mean_line(
    means: pd.DataFrame, unit: str, marks: Marks, place: Place = numbered
) -> list[go.Scatter]:
    """The layer means as larger marks joined by a line; nothing when there are none."""
    each = list(rows(means))
    line = go.Scatter(
        name=marks.name,
        legendrank=1,
        legendgroup=marks.group,
        mode="lines+markers",
        x=[place(row) for row in each],
        y=[row.value for row in each],
        line={"color": marks.colour, "width": 2, "dash": marks.dash},
        marker={
            "color": marks.colour,
            "size": marks.size,
            "symbol": marks.symbol,
            "line": {"color": "#FFFFFF", "width": 1.5},
        },
        hoverinfo="text",
        hovertext=[f"layer {row.layer + 1}, {marks.name}<br>{_value(row, unit)}" for row in each],
    )
    return [line] if each else []


def ribbon(
    means: pd.DataFrame, colour: str, group: str, place: Place = numbered
) -> list[go.Scatter]:
    """The 95 % interval of the layer means as a band; nothing without intervals."""
    ends = [(place(row), row.low, row.high) for row in rows(known(means, "low", "high"))]
    return style.band(ends, colour, group, 0.25)


def uniform(means: pd.DataFrame) -> list[go.Scatter]:
    """What uniform attention would measure; a step where the geometry changes."""
    each = [row for row in rows(known(means, "uniform")) for _ in range(2)]
    steps = go.Scatter(
        name="uniform attention",
        legendrank=3,
        legendgroup="uniform",
        mode="lines",
        x=[row.layer + 1 + (0.5 if at % 2 else -0.5) for at, row in enumerate(each)],
        y=[row.uniform for row in each],
        line={"color": style.GREY.format(0.95), "width": 1.5, "dash": "dot"},
        hoverinfo="text",
        hovertext=[f"uniform attention {row.uniform:.4g} {row.unit}" for row in each],
    )
    return [steps] if each else []


def sideways(layer: int, head: int, heads: int) -> float:
    """Return the place of a head's dot beside its layer's.

    >>> sideways(1, 0, 3), sideways(1, 1, 3)
    (0.8, 1.0)
    """
    return round(layer + ((head + 0.5) / heads - 0.5) * SPREAD, 4)


def _value(row: Any, unit: str) -> str:
    return f"{row.value:.4g} {unit}{style.interval(row.low, row.high)}"
