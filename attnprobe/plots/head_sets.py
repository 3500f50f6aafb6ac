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
    figure = pairs.panels(comparison, TABLE, "Difference in spread,")
    for other, part in pairs.against_first(comparison, TABLE):
        for col, metric in enumerate(pairs.metrics(comparison, TABLE), start=1):
            alike = part["scale"] == pairs.scale(comparison, metric)
            held = part.loc[(part["metric"] == metric) & alike]
            points = pairs.Points(
                pairs.places(comparison, held), _texts(held, comparison.options.confidence)
            )
            pairs.add(figure, col, held, (other, pairs.name(comparison, other)), points)
    pairs.depth_axis(figure, comparison)
    pairs.zero(figure)
    return figure


def _texts(part: pd.DataFrame, level: float) -> list[str]:
    return [
        f"layer {row.layer_a + 1} against {row.layer_b + 1}<br>spread "
        f"{row.spread_a:.4g} against {row.spread_b:.4g} {row.unit}"
        f"{style.interval(row.low, row.high, level)} of the difference<br>"
        f"Wasserstein distance {row.wasserstein:.4g} {row.unit}"
        for row in rows(part)
    ]


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
