"""What figures of a track share: where its checkpoints stand, and how a metric is titled."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import known, rows
from attnprobe.plots import _style as style
from attnprobe.tracking import Track
from attnprobe.tracking.naming import quantity, step_name

ACROSS = 2  # panels side by side
UNEVEN = 8  # gaps between steps that differ more than this are drawn alike


@dataclass(frozen=True)
class Axis:
    """Where checkpoints stand on an axis.

    Attributes:
        place: Position of each step.
        ticks: Positions that are named.
        names: Their names.
        title: What the steps count.
    """

    place: dict[float, float]
    ticks: list[float]
    names: list[str]
    title: str

    def layout(self, room: float) -> dict[str, Any]:
        """Return the settings of a plotly axis with some room at its ends, a part of its length."""
        ends = min(self.place.values()), max(self.place.values())
        margin = room * (ends[1] - ends[0])
        return {
            "tickmode": "array",
            "tickvals": self.ticks,
            "ticktext": self.names,
            "range": [ends[0] - margin, ends[1] + margin],
        }


def axis(track: Track, most: int, *, even: bool = False) -> Axis:
    """Return the axis of a track's steps.

    Args:
        track: The track.
        most: Steps to name, at most.
        even: Whether neighbours stand equally far apart, whatever their steps.
    """
    steps = track.steps
    gaps = [b - a for a, b in pairwise(steps)]
    even = even or max(gaps) > UNEVEN * min(gaps)
    place = {step: float(at) if even else float(step) for at, step in enumerate(steps)}
    named = _thinned(list(place.values()), most)
    inverse = {at: step for step, at in place.items()}
    names = [step_name(inverse[at]) for at in named]
    return Axis(place, named, names, track.word.capitalize())


def panels(
    count: int, *, panel: int, gap: int, margin: tuple[int, int]
) -> tuple[go.Figure, list[tuple[int, int]]]:
    """Return a figure of panels two abreast, and each panel's row and column, from 1.

    Args:
        count: How many; at least one.
        panel: Height of one in pixels.
        gap: Pixels between two that stand one over the other.
        margin: Pixels above and below all.
    """
    cols = min(ACROSS, count)
    down = -(-count // cols)
    inner = down * panel + (down - 1) * gap
    figure = make_subplots(
        rows=down,
        cols=cols,
        horizontal_spacing=0.1,
        vertical_spacing=gap / inner if down > 1 else 0,
    )
    figure.update_layout(template=style.TEMPLATE, height=sum(margin) + inner)
    figure.update_layout(margin={"t": margin[0]}, meta={"narrowest": 330 * cols})
    return figure, [(at // cols + 1, at % cols + 1) for at in range(count)]


def layer_axes(figure: go.Figure, track: Track, lowest: int) -> None:
    """Number the layers of all panels, and name them below the lowest row."""
    style.layer_axis(figure, len(track.results[0].layers))
    figure.update_xaxes(title={"text": ""})
    figure.update_xaxes(title={"text": "Layer (1 = first)"}, row=lowest)


def means(track: Track, metric: str) -> pd.DataFrame:
    """Return the layer means of one metric, by step and layer."""
    table = track.tables["track"]
    return known(table.loc[table["metric"] == metric], "value")


def title(metric: str, table: pd.DataFrame) -> str:
    """Return the name of a metric with its unit."""
    units = [row.unit for row in rows(table.head(1)) if isinstance(row.unit, str)]
    return style.label(style.titled(quantity(metric), units[0] if units else ""), 60)


def _thinned(places: Sequence[float], most: int) -> list[float]:
    """Return some of the places with room between them, the first and the last among them."""
    room = (places[-1] - places[0]) / max(1, most - 1) * 0.99
    kept = [places[0]]
    for place in places[1:-1]:
        if place - kept[-1] >= room and places[-1] - place >= room:
            kept.append(place)
    return [*kept, places[-1]]
