"""Divergence of every head from the other heads of its layer, against depth."""

from plotly.graph_objects import Figure

from attnprobe.plots import Plot
from attnprobe.plots._depth import DepthAxes, draw
from attnprobe.results import Result


def _draw(results: list[Result]) -> Figure:
    return draw(results, DepthAxes("head_kl", "head_kl_mean", "Divergence between heads"))


PLOT = Plot(
    "head_kl",
    "Head diversity by layer",
    ("head_kl_mean",),
    _draw,
    caption="Each small dot is one head's mean divergence from the other heads of its layer; "
    "the line joins the layer means with their 95 % interval. Zero means equal heads.",
)
