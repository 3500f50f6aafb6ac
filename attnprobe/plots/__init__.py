"""Plots: one file each, found by file name; a plot draws numbers and computes none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from attnprobe.results import Result

__all__ = ["MOST", "NIGHT", "PALETTE", "Plot", "drawable", "fills"]

# after Okabe and Ito, sky and orange darkened to keep their contrast on white
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#C98500",
    "#3A9AD9",
    "#8C6BB1",
    "#80868F",
)
# the same hues, lighter, for dark pages
NIGHT = (
    "#4DA8E0",
    "#F28C4E",
    "#3CC79C",
    "#E3A1C7",
    "#E3B04B",
    "#82C8F5",
    "#B79AD9",
    "#A9B0BA",
)
MOST = len(PALETTE)  # results in one figure


@dataclass(frozen=True)
class Plot:
    """One figure that can be drawn from saved results.

    Attributes:
        name: Public name; equal to the file name.
        title: Heading of the figure.
        needs: Tables that its subject must hold; the first one is what the plot is about.
        draw: Draws its subject into one figure.
        caption: How to read the figure, in a sentence or two.
        minimum: Fewest results for which the figure says anything.
        of: Its subject: results (a list of one to eight), comparison, track, training or study.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    draw: Callable[[Any], Figure]
    caption: str = ""
    minimum: int = 1
    of: str = "results"


def drawable(plot: Plot, results: list[Result]) -> list[Result]:
    """Results that hold every table the plot needs; empty when they are too few.

    >>> drawable(Plot("none", "Nothing", ("absent",), draw=list), [])
    []
    """
    held = [result for result in results if fills(plot, result.tables)]
    return held if plot.of == "results" and len(held) >= plot.minimum else []


def fills(plot: Plot, tables: dict[str, pd.DataFrame]) -> bool:
    """Whether every table that a plot needs is there and holds a number."""
    return all(_holds(tables.get(need)) for need in plot.needs)


def _holds(frame: pd.DataFrame | None) -> bool:
    if frame is None or frame.empty:
        return False
    return "value" not in frame or bool(frame["value"].notna().any())
