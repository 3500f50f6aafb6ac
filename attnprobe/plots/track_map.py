"""One metric over training: steps from left to right, layers upwards, values as colours."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import rows
from attnprobe.plots import Plot
from attnprobe.plots import _style as style
from attnprobe.plots import _track as tracks
from attnprobe.tracking import Track
from attnprobe.tracking.naming import metrics, step_name

ACROSS = 2
TOP, BOTTOM, GAP = 34, 56, 70  # pixels around and between rows of panels
WIDTH = 1060  # of the figure on a page
LEAST, LAYER = 200, 17  # height of a panel, and of a layer in it


def _draw(track: Track) -> go.Figure:
    shown = metrics(track)
    cols = min(ACROSS, len(shown))
    down = -(-len(shown) // cols)
    inner = max(LEAST, LAYER * len(track.results[0].layers))
    height = TOP + BOTTOM + down * inner + (down - 1) * GAP
    figure = make_subplots(
        rows=down,
        cols=cols,
        horizontal_spacing=0.16,
        vertical_spacing=GAP / (height - TOP - BOTTOM) if down > 1 else 0,
        subplot_titles=[tracks.title(name, tracks.means(track, name)) for name in shown],
    )
    axis = tracks.axis(track, _ticks(track, cols), even=True)
    for at, metric in enumerate(shown):
        row, col = at // cols + 1, at % cols + 1
        figure.add_trace(_squares(track, metric, axis), row=row, col=col)
    figure.update_xaxes(axis.layout(0), showgrid=False, title={"text": axis.title})
    figure.update_xaxes(range=[-0.5, len(track.steps) - 0.5])
    depth = len(track.results[0].layers)
    figure.update_yaxes(tickvals=style.ticks(depth), showgrid=False, showline=False, ticks="")
    figure.update_yaxes(title={"text": "Layer (1 = first)"}, col=1)
    _place_bars(figure)
    figure.update_annotations(font={"size": 14})
    figure.update_layout(template=style.TEMPLATE, height=height, margin={"t": TOP, "r": 24})
    figure.update_layout(meta={"narrowest": 360 * cols})
    return figure


def _ticks(track: Track, cols: int) -> int:
    """Return how many steps can be named under a panel."""
    longest = max(len(step_name(step)) for step in track.steps)
    return max(2, (WIDTH // cols - 120) // (8 * longest + 14))


def _squares(track: Track, metric: str, axis: tracks.Axis) -> go.Heatmap:
    table = tracks.means(track, metric)
    value = table.pivot(index="layer", columns="step", values="value")
    texts = table.assign(text=[_text(row, track.word) for row in rows(table)])
    hover = texts.pivot(index="layer", columns="step", values="text")
    return go.Heatmap(
        x=[axis.place[step] for step in value.columns],
        y=[layer + 1 for layer in value.index],
        z=_cells(value),
        colorscale=style.SEQUENTIAL,
        hoverinfo="text",
        hovertext=_cells(hover),
        colorbar={"thickness": 12, "outlinewidth": 0},
    )


def _text(row: Any, word: str) -> str:
    unit = row.unit if isinstance(row.unit, str) else ""
    value = f"{row.value:.4g} {unit}{style.interval(row.low, row.high)}"
    return f"{word} {step_name(row.step)}, layer {row.layer + 1}<br>{value}"


def _place_bars(figure: go.Figure) -> None:
    """Stand each colour bar beside its own panel."""
    traces: Any = figure.data
    for trace in traces:
        number = (trace.xaxis or "x").removeprefix("x")
        across, down = (figure.layout[f"{side}axis{number}"].domain for side in "xy")
        trace.colorbar.update(x=across[1], xpad=6, xanchor="left", len=down[1] - down[0])
        trace.colorbar.update(y=(down[0] + down[1]) / 2, ypad=0)


def _cells(frame: pd.DataFrame) -> list[list[Any]]:
    return frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


PLOT = Plot(
    "track_map",
    "Every layer at every checkpoint",
    ("track",),
    _draw,
    caption="One column a checkpoint, equally wide whatever its step; one row a layer, the first "
    "at the bottom. Colours are the layer means; the colour bar has the unit of the title.",
    of="track",
)
