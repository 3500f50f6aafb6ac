"""Paired differences of the layer means between the first model and every other one."""

import pandas as pd
import plotly.graph_objects as go

from attnprobe.comparison import Comparison
from attnprobe.frames import rows
from attnprobe.plots import Plot
from attnprobe.plots import _pairs as pairs
from attnprobe.plots import _style as style

TABLE = "differences"


def _draw(comparison: Comparison) -> go.Figure:
    figure = pairs.drawn(comparison, TABLE, "Difference in", _points, _rows)
    pairs.depth_axis(figure, comparison)
    return figure


def _rows(comparison: Comparison, part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of one metric on the scale and alignment that suit all models."""
    part = pairs.of_scale(comparison, part, metric)
    by_depth = part.loc[part["alignment"] == "depth"]
    use_depth = not pairs.same_depth(comparison) and not by_depth.empty
    return by_depth if use_depth else part.loc[part["alignment"] == "layer"]


def _points(comparison: Comparison, part: pd.DataFrame) -> pairs.Points:
    level = comparison.options.confidence
    texts = [
        f"layer {pairs.number(row.layer_a + 1)} against {pairs.number(row.layer_b + 1)}<br>"
        f"{pairs.number(row.value_a)} \N{MINUS SIGN} {pairs.number(row.value_b)} = "
        f"{pairs.number(row.value)} {row.unit}{style.interval(row.low, row.high, level)}<br>"
        f"p {pairs.number(row.p)}, q {pairs.number(row.q)}, d {pairs.number(row.effect)}"
        for row in rows(part)
    ]
    return pairs.Points(pairs.places(comparison, part), texts)


PLOT = Plot(
    TABLE,
    "Differences by layer",
    (TABLE,),
    _draw,
    caption="The first model less each other one, paired image by image, with intervals over "
    "images; filled marks have q below 0.05 (paired permutation test, false discovery rate over "
    "the layers of a panel). Models of different depth are aligned by relative depth, and "
    "different geometries are compared as parts of what uniform attention would give. All pairs "
    "are in the table.",
    of="comparison",
)
