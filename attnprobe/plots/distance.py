"""Attention distance of every head against depth."""

from plotly.graph_objects import Figure

from attnprobe.plots import Plot
from attnprobe.plots._depth import DepthAxes, draw
from attnprobe.results import Result


def _draw(results: list[Result]) -> Figure:
    return draw(results, DepthAxes("distance", "distance", "Attention distance"))


PLOT = Plot(
    "distance",
    "Attention distance by layer",
    ("distance",),
    _draw,
    caption="Small dots are heads, set apart sideways by head number; the line joins the layer "
    "means with their 95 % interval. The dotted line is what uniform attention would give; "
    "a mean at that line does not make attention uniform, which its entropy tells.",
)
