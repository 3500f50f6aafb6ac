"""The depth figure of every checkpoint in turn: heads and layer means, one panel a metric.

Axes are those of all checkpoints together, so that what moves is the attention. Frames hold only
what changes; a page that has controls of its own drops the slider and the buttons.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from attnprobe.frames import known, rows
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _depth as depth
from attnprobe.plots import _style as style
from attnprobe.plots import _track as tracks
from attnprobe.tracking import Track
from attnprobe.tracking.naming import metrics, step_name

PANEL, GAP, TOP, BOTTOM = 270, 66, 54, 52  # pixels
COLOUR = PALETTE[0]
ROOMY = 14  # layers whose marks have room
EVERY = 600  # milliseconds a checkpoint


def _draw(track: Track) -> go.Figure:
    held = set(known(track.tables["track_heads"], "value")["metric"])
    shown = [name for name in metrics(track) if name in held]
    figure, places = tracks.panels(len(shown), panel=PANEL, gap=GAP, margin=(TOP, BOTTOM))
    moving = {step: _moving(track, shown, step) for step in track.steps}
    last = moving[track.steps[-1]]
    for metric, (row, col) in zip(shown, places, strict=True):
        still, traces = _still(track, metric), [trace for trace in last if trace.meta == metric]
        figure.add_traces([*still, *traces], rows=row, cols=col)
        title = {"text": tracks.title(metric, tracks.means(track, metric))}
        figure.update_yaxes(range=_range(track, metric), title=title, row=row, col=col)
    _add_frames(figure, moving)
    _name_once(figure)
    tracks.layer_axes(figure, track, places[-1][0])
    figure.update_layout(**_controls(track), margin={"t": TOP, "b": BOTTOM})
    return figure


def _still(track: Track, metric: str) -> list[go.Scatter]:
    """What stays: the value of uniform attention, and where the first checkpoint was."""
    table = tracks.means(track, metric)
    first = table.loc[table["step"] == track.steps[0]].sort_values("layer")
    name = f"{track.word} {step_name(track.steps[0])}, mean of heads"
    ghost = go.Scatter(
        name=name,
        legendrank=4,
        legendgroup="first",
        mode="lines",
        x=[layer + 1 for layer in first["layer"]],
        y=[_short(value) for value in first["value"]],
        line={"color": style.GREY.format(0.8), "width": 1.5},
        hoverinfo="skip",
    )
    return [*depth.uniform(first), ghost]


def _moving(track: Track, shown: list[str], step: float) -> list[go.Scatter]:
    """Dots, band and line of every metric at one step, in the same order at every step."""
    heads = track.tables["track_heads"]
    counts = dict(enumerate(track.results[0].layers["heads"].astype(int)))
    traces: list[go.Scatter] = []
    for metric in shown:
        table = tracks.means(track, metric)
        means = table.loc[table["step"] == step].sort_values("layer")
        each = heads.loc[(heads["metric"] == metric) & (heads["step"] == step)]
        found = [_band(means), _dots(known(each, "value"), counts), _line(means)]
        traces += [trace.update(meta=metric) for trace in found]
    return traces


def _band(means: pd.DataFrame) -> go.Scatter:
    there = list(rows(known(means, "low", "high")))
    back = list(reversed(there))
    return go.Scatter(
        name="95 % interval",
        legendrank=2,
        legendgroup="interval",
        mode="lines",
        x=[row.layer + 1 for row in there + back],
        y=[_short(row.high) for row in there] + [_short(row.low) for row in back],
        fill="toself",
        fillcolor=COLOUR,
        opacity=0.25,
        line={"width": 0, "color": COLOUR},
        hoverinfo="skip",
    )


def _dots(heads: pd.DataFrame, counts: dict[int, int]) -> go.Scatter:
    each = list(rows(heads))
    return go.Scatter(
        name="one head",
        legendrank=3,
        legendgroup="heads",
        mode="markers",
        x=[depth.sideways(row.layer + 1, row.head, counts[row.layer]) for row in each],
        y=[_short(row.value) for row in each],
        marker={"color": COLOUR, "size": 5, "opacity": 0.6},
        customdata=[[row.layer + 1, row.head + 1] for row in each],
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>%{y:.4g}<extra></extra>",
    )


def _line(means: pd.DataFrame) -> go.Scatter:
    each = list(rows(means))
    size = 9 if len(each) <= ROOMY else 6
    return go.Scatter(
        name="mean of heads",
        legendrank=1,
        legendgroup="mean",
        mode="lines+markers",
        x=[row.layer + 1 for row in each],
        y=[_short(row.value) for row in each],
        line={"color": COLOUR, "width": 2},
        marker={"color": COLOUR, "size": size, "line": {"color": "#FFFFFF", "width": 1.5}},
        hovertemplate="layer %{x}, mean of heads<br>%{y:.4g}<extra></extra>",
    )


def _range(track: Track, metric: str) -> list[float]:
    """Limits that hold every checkpoint's dots, bands and means, and zero."""
    heads, table = track.tables["track_heads"], tracks.means(track, metric)
    numbers = table[["value", "low", "high", "uniform"]].astype(float).to_numpy().ravel().tolist()
    numbers += heads.loc[heads["metric"] == metric, "value"].tolist()
    finite = [value for value in numbers if pd.notna(value)]
    top, bottom = max(finite), min(0.0, *finite)
    margin = 0.04 * (top - bottom) or 1.0
    return [bottom - (margin if bottom else 0), top + margin]


def _add_frames(figure: go.Figure, moving: dict[float, list[go.Scatter]]) -> None:
    """Add one frame a checkpoint; a frame holds positions, for all else stays."""
    drawn: Any = figure.data
    places = [at for at, trace in enumerate(drawn) if trace.meta]
    figure.frames = [
        go.Frame(
            name=step_name(step),
            data=[{"type": "scatter", "x": trace.x, "y": trace.y} for trace in traces],
            traces=places,
        )
        for step, traces in moving.items()
    ]


def _name_once(figure: go.Figure) -> None:
    """List every kind of mark once in the legend."""
    named: set[str] = set()
    traces: Any = figure.data
    for trace in traces:
        trace.showlegend = trace.name not in named
        named.add(str(trace.name))


def _controls(track: Track) -> dict[str, Any]:
    """Plotly's own slider and buttons, for notebooks."""
    names = [step_name(step) for step in track.steps]
    at_once = {"mode": "immediate", "transition": {"duration": 0}, "frame": {"duration": 0}}
    play = {"fromcurrent": True, "frame": {"duration": EVERY}, "transition": {"duration": 250}}
    slider = {
        "active": len(names) - 1,
        "currentvalue": {"prefix": f"{track.word.capitalize()} "},
        "pad": {"t": 44},
        "steps": [
            {"label": name, "method": "animate", "args": [[name], at_once]} for name in names
        ],
    }
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, play]},
        {"label": "Pause", "method": "animate", "args": [[None], at_once]},
    ]
    place = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom", "direction": "left"}
    menu = {"type": "buttons", "buttons": buttons, "showactive": False, **place}
    return {"sliders": [slider], "updatemenus": [menu]}


def _short(value: float) -> float:
    return float(f"{value:.5g}")


PLOT = Plot(
    "track_movie",
    "Heads and layers, checkpoint by checkpoint",
    ("track", "track_heads"),
    _draw,
    caption="Small dots are heads, set apart sideways by head number; the blue line joins the "
    "layer means with their 95 % interval, the grey line is the first checkpoint's and stays. The "
    "dotted line is what uniform attention would give. Axes are the same at every checkpoint.",
    of="track",
)
