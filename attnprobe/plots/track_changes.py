"""What changed from the first to the last checkpoint: every layer's change with its interval."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from attnprobe.frames import known, rows
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.plots import _track as tracks
from attnprobe.tracking import Track
from attnprobe.tracking.naming import metrics

PANEL, GAP, TOP, BOTTOM = 230, 62, 48, 52  # pixels
COLOUR = PALETTE[0]
HOLLOW = "#FFFFFF"
APART, ALIKE = "interval without zero", "interval with zero"


def _draw(track: Track) -> go.Figure:
    table = known(track.tables["changes"], "change")
    shown = [name for name in metrics(track) if name in set(table["metric"])]
    figure, places = tracks.panels(len(shown), panel=PANEL, gap=GAP, margin=(TOP, BOTTOM))
    named: set[str] = set()
    for metric, (row, col) in zip(shown, places, strict=True):
        part = table.loc[table["metric"] == metric].sort_values("layer")
        for trace in _traces(part):
            trace.showlegend = trace.name not in named
            named.add(str(trace.name))
            figure.add_trace(trace, row=row, col=col)
        title = {"text": f"Change in {_lower(metric, part)}"}
        figure.update_yaxes(title=title, row=row, col=col)
    figure.update_yaxes(
        rangemode="tozero", zeroline=True, zerolinecolor=style.GREY.format(0.9), zerolinewidth=1.5
    )
    tracks.layer_axes(figure, track, places[-1][0])
    return figure


def _traces(table: pd.DataFrame) -> list[go.Scatter]:
    """Full marks where the interval excludes zero, hollow ones where it holds zero."""
    apart = (table["low"] > 0) | (table["high"] < 0)
    bounded = table["low"].notna()
    parts = {
        APART: (table.loc[bounded & apart], COLOUR),
        ALIKE: (table.loc[bounded & ~apart], HOLLOW),
        "without an interval": (table.loc[~bounded], HOLLOW),
    }
    return [_marks(rows_, name, fill) for name, (rows_, fill) in parts.items() if len(rows_)]


def _marks(table: pd.DataFrame, name: str, fill: str) -> go.Scatter:
    each = list(rows(table))
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [_gap(row.change, row.high) for row in each],
        "arrayminus": [_gap(row.low, row.change) for row in each],
        "color": COLOUR,
        "thickness": 1.5,
        "width": 3,
    }
    return go.Scatter(
        name=name,
        legendgroup=name,
        mode="markers",
        x=[row.layer + 1 for row in each],
        y=[row.change for row in each],
        error_y=bars,
        cliponaxis=False,
        marker={"color": fill, "size": 8, "line": {"color": COLOUR, "width": 1.75}},
        hoverinfo="text",
        hovertext=[_text(row) for row in each],
    )


def _gap(low: float, high: float) -> float | None:
    return max(0.0, float(high) - float(low)) if pd.notna(low) and pd.notna(high) else None


def _text(row: Any) -> str:
    ends = f"{row.value_first:.4g} to {row.value_last:.4g} {row.unit}"
    change = f"{row.change:+.4g} {row.unit}{style.interval(row.low, row.high)}"
    return f"layer {row.layer + 1}: {ends}<br>{change}"


def _lower(metric: str, table: pd.DataFrame) -> str:
    """Return the title of a metric as it stands inside a sentence."""
    words = tracks.title(metric, table)
    return words[:1].lower() + words[1:]


PLOT = Plot(
    "track_changes",
    "Change from the first to the last checkpoint",
    ("track", "changes"),
    _draw,
    caption="Last minus first checkpoint, with the 95 % interval of the paired difference over "
    "images. Hollow marks have zero in their interval: no change can be told there.",
    of="track",
)
