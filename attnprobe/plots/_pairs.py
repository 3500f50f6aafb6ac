"""What figures of a comparison share: every model against the first, and one axis of depth."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.comparison import Comparison
from attnprobe.frames import rows
from attnprobe.plots import PALETTE
from attnprobe.plots import _style as style

METRICS = {
    "distance": "attention distance",
    "entropy": "attention entropy",
    "head_kl": "divergence between heads",
}
SIGNIFICANT = 0.05


class Points(NamedTuple):
    """Places on the horizontal axis, and a text for each."""

    x: list[float]
    texts: list[str]


def against_first(comparison: Comparison, table: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield each other model's number with its rows of a table about it and the first model."""
    frame = comparison.tables[table]
    for other in range(1, len(comparison.results)):
        part = frame.loc[(frame["model_a"] == 0) & (frame["model_b"] == other)]
        if not part.empty:
            yield other, part


def name(comparison: Comparison, other: int) -> str:
    """Label of a pair: the first model less the other one."""
    first, second = (style.label(comparison.results[at].name) for at in (0, other))
    return f"{first} \N{MINUS SIGN} {second}"


def title(comparison: Comparison, table: str, metric: str, words: str) -> str:
    """Axis title: words, the metric and the unit of the scale that is drawn."""
    frame, drawn = comparison.tables[table], scale(comparison, metric)
    units = frame.loc[(frame["metric"] == metric) & (frame["scale"] == drawn), "unit"]
    unit = next(iter(units), "") if drawn == "value" else "of uniform"
    return style.titled(f"{words} {METRICS[metric]}", unit)


def metrics(comparison: Comparison, table: str) -> list[str]:
    """Metrics that a table holds, in their usual order."""
    held = set(comparison.tables[table]["metric"])
    return [metric for metric in METRICS if metric in held]


def panels(comparison: Comparison, table: str, words: str) -> go.Figure:
    """Figure with one panel a metric of a table, side by side, titled by words and the metric."""
    titles = [title(comparison, table, metric, words) for metric in metrics(comparison, table)]
    figure = make_subplots(rows=1, cols=max(1, len(titles)), horizontal_spacing=0.08)
    figure.update_layout(template=style.TEMPLATE, height=88 + style.PANEL, margin={"t": 64})
    for col, text in enumerate(titles, start=1):
        figure.update_yaxes(title={"text": text}, row=1, col=col)
    return figure


def drawn(
    comparison: Comparison,
    table: str,
    words: str,
    points: Callable[[Comparison, pd.DataFrame], Points],
    chosen: Callable[[Comparison, pd.DataFrame, str], pd.DataFrame] | None = None,
) -> go.Figure:
    """Draw every model against the first, one panel a metric of a table.

    Args:
        comparison: The comparison.
        table: Which of its tables.
        words: What the titles of the axes begin with.
        points: Gives places and texts of one pair's rows.
        chosen: Gives the rows of a metric among those of a pair; those of `scale` if None.
    """
    chosen = chosen or of_scale
    figure = panels(comparison, table, words)
    for other, part in against_first(comparison, table):
        for col, metric in enumerate(metrics(comparison, table), start=1):
            held = chosen(comparison, part, metric)
            pair = (other, name(comparison, other))
            add(figure, col, held, pair, points(comparison, held))
    figure.update_yaxes(zeroline=True, zerolinecolor=style.GREY.format(0.8), zerolinewidth=1.5)
    return figure


def of_scale(comparison: Comparison, part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of one metric on the scale on which these models compare."""
    alike = part["scale"] == scale(comparison, metric)
    return part.loc[(part["metric"] == metric) & alike]


def depth_axis(figure: go.Figure, comparison: Comparison) -> None:
    """Number the layers, or where depths differ, go from the first to the last."""
    if same_depth(comparison):
        style.layer_axis(figure, len(comparison.results[0].layers))
    else:
        style.relative_axis(figure)


def same_depth(comparison: Comparison) -> bool:
    """Whether all models have the same number of layers."""
    return style.same_depth(list(comparison.results))


def scale(comparison: Comparison, metric: str) -> str:
    """Return the scale on which these models compare."""
    return style.scale(list(comparison.results), metric)


def places(comparison: Comparison, part: pd.DataFrame) -> list[float]:
    """Where rows stand on the axis of depth."""
    if same_depth(comparison):
        return (part["layer_a"] + 1).tolist()
    if "depth" in part:
        return part["depth"].tolist()
    return (part["layer_a"] / max(1, len(comparison.results[0].layers) - 1)).tolist()


def line(
    x: list[float], part: pd.DataFrame, other: int, label: str, texts: list[str]
) -> go.Scatter:
    """The differences of one pair; open marks where the adjusted p-value is not small."""
    closed, symbol = style.SYMBOLS[other % 8], f"{style.SYMBOLS[other % 8]}-open"
    small = part["q"] < SIGNIFICANT if "q" in part else (part["low"] > 0) | (part["high"] < 0)
    return go.Scatter(
        name=label,
        legendgroup=str(other),
        mode="lines+markers",
        x=x,
        y=part["value"].tolist(),
        line={"color": PALETTE[other], "width": 2, "dash": style.DASHES[other]},
        marker={
            "color": PALETTE[other],
            "size": 9,
            "symbol": [closed if each else symbol for each in small],
        },
        hoverinfo="text",
        hovertext=texts,
    )


def add(
    figure: go.Figure, col: int, part: pd.DataFrame, pair: tuple[int, str], points: Points
) -> None:
    """Draw one pair's interval and line into a panel; its legend stands in the first one.

    Args:
        figure: Figure of panels.
        col: Panel, from 1.
        part: Rows of the pair.
        pair: Number of the other model, and the label of the pair.
        points: Places of the rows and what they say when pointed at.
    """
    other, label = pair
    drawn = line(points.x, part, other, label, points.texts)
    drawn.showlegend = col == 1
    held = zip(points.x, rows(part), strict=True)
    ends = [(x, row.low, row.high) for x, row in held if pd.notna(row.low)]
    ribbon = style.band(ends, PALETTE[other], str(other), 0.2)
    figure.add_traces([*ribbon, drawn], rows=1, cols=col)


def number(value: Any) -> str:
    """A number of a hover text."""
    return "\N{EN DASH}" if pd.isna(value) else f"{value:.4g}"
