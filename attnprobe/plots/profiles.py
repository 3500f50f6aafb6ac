"""Layer means of several models on the same axes, one panel a metric."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import deepest, known, layer_means, rows
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _depth as depth
from attnprobe.plots import _style as style
from attnprobe.results import Result

QUANTITIES = {
    "distance": "Attention distance",
    "entropy": "Attention entropy",
    "head_kl": "Divergence between heads",
}


def _draw(results: list[Result]) -> go.Figure:
    style.panels(results)  # refuses too few and too many
    shown = [m for m in QUANTITIES if any(not layer_means(r, m).empty for r in results)]
    figure = make_subplots(rows=1, cols=max(1, len(shown)), horizontal_spacing=0.08)
    figure.update_layout(template=style.TEMPLATE, height=72 + style.PANEL)
    for col, metric in enumerate(shown, start=1):
        for index in range(len(results)):
            for trace in _traces(results, metric, index):
                trace.showlegend = col == 1 and trace.mode == "lines+markers"
                figure.add_trace(trace, row=1, col=col)
        title = style.titled(QUANTITIES[metric], _unit(results, metric))
        figure.update_yaxes(title={"text": title}, row=1, col=col)
    if style.same_depth(results):
        style.layer_axis(figure, deepest(results))
    else:
        style.relative_axis(figure)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _unit(results: list[Result], metric: str) -> str:
    units = {row.unit for r in results for row in rows(layer_means(r, metric))}
    unit = style.agreed(units, metric)
    return unit if style.scale(results, metric) == "value" else style.RATIO


def _means(results: list[Result], metric: str, index: int) -> pd.DataFrame:
    """Layer means of one model on the scale on which all of them compare."""
    means = layer_means(results[index], metric)
    if style.scale(results, metric) == "value":
        return means
    scaled = {end: means[end] / means["uniform"] for end in ("value", "low", "high")}
    return known(means.assign(**scaled, unit=style.RATIO), "value")


def _traces(results: list[Result], metric: str, index: int) -> list[go.Scatter]:
    means, result = _means(results, metric, index), results[index]
    group = f"model{index}"  # not the name: two models may share it
    marks = depth.Marks(
        PALETTE[index],
        style.label(result.name),
        group,
        symbol=style.SYMBOLS[index],
        dash=style.DASHES[index],
        size=8,
    )
    unit = "".join(row.unit for row in rows(means.head(1)))
    last = max(1, len(result.layers) - 1)
    place = depth.numbered if style.same_depth(results) else lambda row: row.layer / last
    band = depth.ribbon(means, marks.colour, group, place)
    return [*band, *depth.mean_line(means, unit, marks, place)]


PLOT = Plot(
    "profiles",
    "Layer means side by side",
    ("layer_means",),
    _draw,
    caption="The mean over heads of each layer with its 95 % interval, for every model; models of "
    "different depth by relative depth, different input sizes and numbers of keys as parts of "
    "what uniform attention would give.",
    minimum=2,
)
