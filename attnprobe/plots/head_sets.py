"""How differently wide the heads of aligned layers are spread, against depth."""

import pandas as pd
import plotly.graph_objects as go

from attnprobe.comparison import Comparison
from attnprobe.frames import rows
from attnprobe.plots import Plot
from attnprobe.plots import _pairs as pairs
from attnprobe.plots import _style as style

TABLE = "head_sets"


def _draw(comparison: Comparison) -> go.Figure:
    figure = pairs.drawn(comparison, TABLE, "Difference in spread,", _points)
    pairs.depth_axis(figure, comparison)
    return figure


def _points(comparison: Comparison, part: pd.DataFrame) -> pairs.Points:
    level = comparison.options.confidence
    texts = [
        f"layer {row.layer_a + 1} against {row.layer_b + 1}<br>spread "
        f"{row.spread_a:.4g} against {row.spread_b:.4g} {row.unit}"
        f"{style.interval(row.low, row.high, level)} of the difference<br>"
        f"Wasserstein distance {row.wasserstein:.4g} {row.unit}"
        for row in rows(part)
    ]
    return pairs.Points(pairs.places(comparison, part), texts)


PLOT = Plot(
    TABLE,
    "Spread of heads by layer",
    (TABLE,),
    _draw,
    caption="Standard deviation over the heads of a layer, the first model less each other one, "
    "with intervals over images; filled marks have an interval without zero. Heads have no "
    "identity across models, so layers are compared as sets of heads.",
    of="comparison",
)
