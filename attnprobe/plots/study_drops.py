"""Fine-tuned accuracy against the number of last blocks that were dropped before."""

from typing import Any

import plotly.graph_objects as go

from attnprobe.frames import known, rows
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.study import Summary
from attnprobe.study.settings import METHODS

HEIGHT, TOP = 380, 48  # pixels
ASIDE = 0.06  # blocks between the marks of two methods


def _draw(summary: Summary) -> go.Figure:
    table = summary.tables["drops"]
    figure = go.Figure()
    held = list(dict.fromkeys(table["method"]))
    for at, method in enumerate(held):
        part = table.loc[table["method"] == method].sort_values("dropped")
        aside = ASIDE * (at - (len(held) - 1) / 2)
        colour = PALETTE[summary.order.index(method)]
        figure.add_traces([_line(part, method, colour, aside), _seeds(part, method, colour, aside)])
    figure.update_xaxes(
        title={"text": "Last blocks dropped before fine-tuning"},
        tickmode="array",
        tickvals=sorted(set(table["dropped"])),
        showgrid=False,
    )
    figure.update_yaxes(title={"text": "Accuracy, fine-tuned"}, tickformat=".3~%")
    figure.update_layout(template=style.TEMPLATE, height=HEIGHT, margin={"t": TOP})
    figure.update_layout(showlegend=True, meta={"narrowest": 300, "widest": 760})
    return figure


def _line(part: Any, method: str, colour: str, aside: float) -> go.Scatter:
    each = list(rows(part))
    up = [_reach(row.high, row.value) for row in each]
    down = [_reach(row.value, row.low) for row in each]
    return go.Scatter(
        name=METHODS[method],
        legendgroup=method,
        mode="lines+markers",
        x=[row.dropped + aside for row in each],
        y=[row.value for row in each],
        error_y={"type": "data", "array": up, "arrayminus": down, "thickness": 1.5, "width": 5},
        line={"color": colour, "width": 2},
        marker={"color": colour, "size": 9},
        hoverinfo="text",
        hovertext=[
            f"{METHODS[method]}, {row.dropped} dropped<br>{100 * row.value:.2f} %"
            f", {row.seeds} seeds{style.interval(row.low, row.high)}"
            for row in each
        ],
    )


def _seeds(part: Any, method: str, colour: str, aside: float) -> go.Scatter:
    """Each seed's accuracy as a small open mark."""
    each = [
        (row.dropped + aside, float(value))
        for row in rows(known(part, "value"))
        for value in row.by_seed.split(", ")
    ]
    return go.Scatter(
        name="one seed",
        legendgroup=method,
        showlegend=False,
        mode="markers",
        x=[x for x, _ in each],
        y=[y for _, y in each],
        marker={"color": colour, "size": 7, "symbol": "circle-open"},
        hovertemplate="one seed: %{y:.2%}<extra></extra>",
    )


def _reach(upper: float, lower: float) -> float:
    """Length of a bar, zero where there is no interval."""
    return upper - lower if upper >= lower else 0.0


PLOT = Plot(
    "study_drops",
    "Accuracy without the last blocks",
    ("drops",),
    _draw,
    caption="Filled marks are means over seeds with their 95 % t interval, where there are two or "
    "more seeds; open ones are single seeds. The table has the change seed by seed, whose interval "
    "is narrower. Methods are set apart sideways.",
    of="study",
)
