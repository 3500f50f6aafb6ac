"""How the overall difference and its interval settle as images are added."""

import pandas as pd
import plotly.graph_objects as go

from attnprobe.comparison import Comparison
from attnprobe.frames import rows
from attnprobe.plots import Plot
from attnprobe.plots import _pairs as pairs
from attnprobe.plots import _style as style

TABLE = "running"


def _draw(comparison: Comparison) -> go.Figure:
    figure = pairs.drawn(comparison, TABLE, "Difference in", _points)
    sizes = sorted(set(comparison.tables[TABLE]["images"]))
    figure.update_xaxes(
        title={"text": "Images"},
        type="log",
        tickmode="array",
        tickvals=_thinned(sizes),
        ticktext=[str(size) for size in _thinned(sizes)],
        showgrid=False,
    )
    return figure


def _points(comparison: Comparison, part: pd.DataFrame) -> pairs.Points:
    level = comparison.options.confidence
    texts = [
        f"{row.images} images<br>{row.value:.4g} {row.unit}"
        f"{style.interval(row.low, row.high, level)}"
        for row in rows(part)
    ]
    return pairs.Points([float(size) for size in part["images"]], texts)


def _thinned(sizes: list[int]) -> list[int]:
    """Keep numbers of images that stand apart on a logarithmic axis, the last among them.

    >>> _thinned([8, 9, 10, 16, 64])
    [10, 16, 64]
    """
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or size * 1.5 <= kept[0]:
            kept.insert(0, size)
    return kept


PLOT = Plot(
    TABLE,
    "How many images are enough",
    (TABLE,),
    _draw,
    caption="The mean difference over all layers, the first model less each other one, and its "
    "interval as images are added in a random order. Filled marks have an interval without zero. "
    "The table of differences says how many images each layer would take.",
    of="comparison",
)
