"""Heads against depth: one dot a head, the layer mean with its interval, the uniform value."""

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from attnprobe.plots import _style as style
from attnprobe.results import Result

SPREAD = 0.6


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


def draw(results: list[Result], axes: DepthAxes) -> go.Figure:
    """Draw one panel a model with a common vertical axis."""
    figure = style.panels(results)
    unit = style.shared(results, axes.table)
    for index, result in enumerate(results):
        colour = style.PALETTE[index]
        for trace in _traces(result, axes, unit, colour):
            trace.showlegend = index == 0 and trace.name != "interval"
            figure.add_trace(trace, **style.spot(results, index))
    style.layer_axis(figure, max(len(result.layers) for result in results))
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title={"text": style.titled(axes.quantity, unit)}, col=1)
    return figure


def _traces(result: Result, axes: DepthAxes, unit: str, colour: str) -> list[go.Scatter]:
    means = layer_means(result, axes.metric)
    heads = result.tables[axes.table].dropna(subset=["value"])
    parts = [ribbon(means, colour), uniform(means), dots(heads, result, unit, colour)]
    if not means.empty:
        parts.append(mean_line(means, unit, colour))
    return [part for part in parts if part is not None]


def layer_means(result: Result, metric: str) -> pd.DataFrame:
    """Rows of `layer_means` for one metric, in layer order; empty when there are none."""
    table = result.tables.get("layer_means")
    if table is None or table.empty:
        return pd.DataFrame(columns=["layer", "value", "low", "high", "uniform"])
    return table[table["metric"] == metric].dropna(subset=["value"]).sort_values("layer")


def dots(heads: pd.DataFrame, result: Result, unit: str, colour: str) -> go.Scatter:
    """One dot a head, set off sideways by head number so that equal heads stay apart."""
    count = heads["layer"].map(result.layers.set_index("layer")["heads"])
    offset = ((heads["head"] + 0.5) / count - 0.5) * SPREAD
    return go.Scatter(
        name="one head",
        legendrank=2,
        legendgroup="heads",
        mode="markers",
        x=(heads["layer"] + 1 + offset).round(4).tolist(),
        y=heads["value"].tolist(),
        marker={"color": colour, "size": 6, "opacity": 0.55},
        hoverinfo="text",
        hovertext=[
            f"layer {row.layer + 1}, head {row.head + 1}<br>{row.value:.4g} {unit}"
            f"{style.interval(row.low, row.high)}"
            for row in heads.itertuples()
        ],
    )


def mean_line(means: pd.DataFrame, unit: str, colour: str, name: str = "") -> go.Scatter:
    """The layer means as larger marks joined by a line."""
    return go.Scatter(
        name=name or "mean of the layer's heads, 95 % interval",
        legendrank=1,
        legendgroup=name or "mean",
        mode="lines+markers",
        x=(means["layer"] + 1).tolist(),
        y=means["value"].tolist(),
        line={"color": colour, "width": 2},
        marker={"color": colour, "size": 10, "line": {"color": "#FFFFFF", "width": 1.5}},
        hoverinfo="text",
        hovertext=[
            f"{name + '<br>' if name else ''}layer {row.layer + 1}, mean over heads"
            f"<br>{row.value:.4g} {unit}{style.interval(row.low, row.high)}"
            for row in means.itertuples()
        ],
    )


def ribbon(means: pd.DataFrame, colour: str, group: str = "mean") -> go.Scatter | None:
    """The 95 % interval of the layer means as a band."""
    known = means.dropna(subset=["low", "high"])
    if known.empty:
        return None
    x = (known["layer"] + 1).tolist()
    return go.Scatter(
        name="interval",
        legendrank=9,
        legendgroup=group,
        mode="lines",
        x=[*x, *x[::-1]],
        y=[*known["high"], *known["low"][::-1]],
        fill="toself",
        fillcolor=colour,
        opacity=0.25,
        line={"width": 0, "color": colour},
        hoverinfo="skip",
        showlegend=False,
    )


def uniform(means: pd.DataFrame) -> go.Scatter | None:
    """What uniform attention would measure; a step where the geometry changes."""
    known = means.dropna(subset=["uniform"])
    if known.empty:
        return None
    pairs = list(zip(known["layer"] + 1, known["uniform"], strict=True))
    return go.Scatter(
        name="uniform attention",
        legendrank=3,
        legendgroup="uniform",
        mode="lines",
        x=[layer + side for layer, _ in pairs for side in (-0.5, 0.5)],
        y=[value for _, value in pairs for _ in range(2)],
        line={"color": style.GREY.format(0.95), "width": 1.5, "dash": "dot"},
        hoverinfo="text",
        hovertext=[f"uniform attention {value:.4g}" for _, value in pairs for _ in range(2)],
    )
