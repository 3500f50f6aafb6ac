"""Small multiples: one panel a layer, its mean against the step, its interval and its heads."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import known, rows
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.plots import _track as tracks
from attnprobe.tracking import Track
from attnprobe.tracking.naming import metrics, step_name

ACROSS = 6
TOP, BOTTOM, PANEL, GAP, BLOCK = 84, 52, 118, 30, 66  # pixels
COLOUR = PALETTE[0]
MEAN, ALONE = "mean of heads", "value of the layer"
LINES = {MEAN, ALONE}  # drawn alike: one entry in the legend stands for both
ROOM = 0.13  # beside the first and the last step, for their labels
FAR = 0.5  # values above this part of the largest are far from zero
INTERVAL, HEADS = 0.38, 0.16  # opacity of the bands


def _draw(track: Track) -> go.Figure:
    shown = metrics(track)
    tables = {metric: tracks.means(track, metric) for metric in shown}
    depth = len(track.results[0].layers)
    cols = min(ACROSS, depth)
    down = -(-depth // cols)  # rows of one metric
    figure = _grid(down * len(shown), cols, GAP if len(shown) == 1 else BLOCK)
    axis = tracks.axis(track, 3)
    named: set[str] = set()
    spots = []
    for block, table in enumerate(tables.values()):
        for layer in range(depth):
            row, col = block * down + layer // cols + 1, layer % cols + 1
            for trace in _traces(table.loc[table["layer"] == layer], axis, track.word):
                drawn = named | {str(trace.name)}
                trace.showlegend = drawn != named and not drawn >= LINES
                named = drawn
                spots.append((trace, row, col))
        _scale(figure, table, range(block * down + 1, (block + 1) * down + 1))
    traces, at, across = zip(*spots, strict=True)
    figure.add_traces(traces, rows=at, cols=across)
    titles = [tracks.title(metric, table) for metric, table in tables.items()]
    _finish(figure, axis, depth, titles)
    return figure


def _grid(down: int, cols: int, gap: int) -> go.Figure:
    inner = down * PANEL + (down - 1) * gap
    figure = make_subplots(
        rows=down,
        cols=cols,
        horizontal_spacing=0.016,
        vertical_spacing=gap / inner if down > 1 else 0,
    )
    margin = {"t": TOP, "b": BOTTOM, "l": 52}
    figure.update_layout(template=style.TEMPLATE, height=TOP + BOTTOM + inner, margin=margin)
    return figure


def _traces(table: pd.DataFrame, axis: tracks.Axis, word: str) -> list[go.Scatter]:
    each = list(rows(table.sort_values("step")))
    x = [axis.place[row.step] for row in each]
    bands = [
        _band(table, axis, ("head_min", "head_max"), name="range of heads", opacity=HEADS),
        _band(table, axis, ("low", "high"), name="95 % interval", opacity=INTERVAL),
    ]
    line = go.Scatter(
        name=MEAN if len(known(table, "head_min")) else ALONE,
        legendrank=1,
        legendgroup="mean",
        mode="lines+markers",
        x=x,
        y=[_short(row.value) for row in each],
        line={"color": COLOUR, "width": 1.75},
        marker={"color": COLOUR, "size": 4},
        hoverinfo="text",
        hovertext=[_text(row, word) for row in each],
    )
    return [*bands[0], *_uniform(table, axis), *bands[1], line]


def _band(
    table: pd.DataFrame, axis: tracks.Axis, ends: tuple[str, str], *, name: str, opacity: float
) -> list[go.Scatter]:
    """Return a band between two columns; nothing where they hold no numbers."""
    there = known(table, *ends).sort_values("step")
    x = [axis.place[step] for step in there["step"]]
    low, high = ([_short(value) for value in there[end]] for end in ends)
    band = go.Scatter(
        name=name,
        legendrank=2,
        legendgroup=name,
        mode="lines",
        x=x + x[::-1],
        y=high + low[::-1],
        fill="toself",
        fillcolor=COLOUR,
        opacity=opacity,
        line={"width": 0, "color": COLOUR},
        hoverinfo="skip",
    )
    return [band] if x else []


def _uniform(table: pd.DataFrame, axis: tracks.Axis) -> list[go.Scatter]:
    there = known(table, "uniform").sort_values("step")
    line = go.Scatter(
        name="uniform attention",
        legendrank=3,
        legendgroup="uniform",
        mode="lines",
        x=[axis.place[step] for step in there["step"]],
        y=there["uniform"].tolist(),
        line={"color": style.GREY.format(0.95), "width": 1.25, "dash": "dot"},
        hoverinfo="skip",
    )
    return [line] if len(there) else []


def _text(row: Any, word: str) -> str:
    unit = row.unit if isinstance(row.unit, str) else ""
    value = f"{row.value:.4g} {unit}{style.interval(row.low, row.high)}"
    heads = f"<br>heads {row.head_min:.4g} to {row.head_max:.4g}" if pd.notna(row.head_min) else ""
    return f"layer {row.layer + 1}, {word} {step_name(row.step)}<br>{value}{heads}"


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _scale(figure: go.Figure, table: pd.DataFrame, down: range) -> None:
    """Give every panel of a metric the same vertical axis, with zero unless all are far from it."""
    numbers = table[["value", "low", "high", "head_min", "head_max", "uniform"]].astype(float)
    top, least = float(numbers.max().max()), float(numbers.min().min())
    bottom = least if least > FAR * top else min(0.0, least)
    margin = 0.05 * (top - bottom) or 1.0
    for row in down:
        figure.update_yaxes(range=[bottom - (margin if bottom else 0), top + margin], row=row)


def _finish(figure: go.Figure, axis: tracks.Axis, depth: int, names: list[str]) -> None:
    """Number the panels, and name values at the left and steps at the bottom only."""
    cols, blocks = min(ACROSS, depth), len(names)
    down = -(-depth // cols)
    figure.update_xaxes(**axis.layout(ROOM), showticklabels=False, showgrid=False, tickangle=0)
    figure.update_yaxes(showticklabels=False, nticks=4)
    figure.update_yaxes(showticklabels=True, col=1)
    titles = [
        _title(f"<b>{name}</b>", block * down * cols + 1, lift=20)
        for block, name in enumerate(names)
    ]
    for panel in range(blocks * down * cols):
        block, layer = divmod(panel, down * cols)
        row, col = panel // cols + 1, panel % cols + 1
        if layer >= depth:
            figure.update_xaxes(visible=False, row=row, col=col)
            figure.update_yaxes(visible=False, row=row, col=col)
            continue
        if layer + cols >= depth:
            last = block == blocks - 1 and col == (cols + 1) // 2
            words = {"text": axis.title if last else ""}
            figure.update_xaxes(showticklabels=True, title=words, row=row, col=col)
        titles.append(_title(f"layer {layer + 1}", panel + 1))
    figure.update_layout(annotations=titles, meta={"narrowest": 130 * cols + 60})


def _title(text: str, panel: int, *, lift: int = 0) -> dict[str, Any]:
    number = "" if panel == 1 else str(panel)
    place = {"xref": f"x{number} domain", "yref": f"y{number} domain", "x": 0, "y": 1}
    anchor = {"xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return {"text": text, **place, **anchor, "yshift": lift, "font": {"size": 13 if lift else 12}}


PLOT = Plot(
    "track_layers",
    "Layer by layer over training",
    ("track",),
    _draw,
    caption="One panel a layer, all with the same axes. The line is the mean over heads with its "
    "95 % interval, the paler band reaches from the lowest to the highest head, the dotted line "
    "is what uniform attention would give. The vertical axis starts at zero unless all values are "
    "far from it. Checkpoints stand at their step, or equally far apart "
    "where the gaps between steps differ more than eightfold.",
    of="track",
)
