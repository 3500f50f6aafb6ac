"""What figures of a track share: where its checkpoints stand, and how a metric is titled."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from attnprobe.frames import known, rows
from attnprobe.plots import _style as style
from attnprobe.tracking import Track
from attnprobe.tracking.naming import quantity, step_name

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
