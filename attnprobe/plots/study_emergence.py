"""How the last layers of each method became what they are: means at each probe, by epoch."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import rows
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.study import Summary
from attnprobe.study.settings import METHODS

TITLES = {
    "distance": "Attention distance (of uniform)",
    "entropy": "Attention entropy (of uniform)",
    "head_kl": "Divergence between heads (nats)",
}
PANEL, TOP, BOTTOM = 270, 48, 52  # pixels


def _draw(summary: Summary) -> go.Figure:
    table = summary.tables["emergence"]
    shown = [metric for metric in TITLES if metric in set(table["metric"])]
    figure = make_subplots(rows=1, cols=len(shown), horizontal_spacing=0.26 / len(shown))
    for col, metric in enumerate(shown, start=1):
        of_metric = table.loc[table["metric"] == metric]
        for method in dict.fromkeys(of_metric["method"]):
            at = summary.order.index(method)
            each = list(rows(of_metric.loc[of_metric["method"] == method]))
            figure.add_trace(_line(each, method, at, first=col == 1), row=1, col=col)
        figure.update_yaxes(title={"text": TITLES[metric]}, row=1, col=col)
    figure.update_xaxes(title={"text": "Epoch"}, rangemode="tozero")
    figure.update_layout(template=style.TEMPLATE, height=TOP + PANEL + BOTTOM, margin={"t": TOP})
    figure.update_layout(showlegend=True, meta={"narrowest": 290 * len(shown)})
    return figure


def _line(each: list, method: str, at: int, *, first: bool) -> go.Scatter:
    return go.Scatter(
        name=METHODS[method],
        legendgroup=method,
        showlegend=first,
        mode="lines+markers",
        x=[row.epoch for row in each],
        y=[float(f"{row.value:.5g}") for row in each],
        line={"color": PALETTE[at], "width": 2, "dash": style.DASHES[at]},
        marker={"color": PALETTE[at], "size": 6, "symbol": style.SYMBOLS[at]},
        hoverinfo="text",
        hovertext=[
            f"{METHODS[method]}, epoch {row.epoch:.3g}, step {row.step}<br>{row.value:.4g}"
            f" {row.unit}"
            for row in each
        ],
    )


PLOT = Plot(
    "study_emergence",
    "The last layers while they were trained",
    ("emergence",),
    _draw,
    caption="Means over the last third of the layers at each probe of one run a method, its first "
    "seed. Methods may be trained for different numbers of epochs.",
    of="study",
)
