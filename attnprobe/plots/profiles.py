"""Layer means of several models on the same axes, one panel a metric."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.plots import Plot
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
    shown = [m for m in QUANTITIES if any(not depth.layer_means(r, m).empty for r in results)]
    figure = make_subplots(rows=1, cols=max(1, len(shown)), horizontal_spacing=0.08)
    figure.update_layout(template=style.TEMPLATE, height=72 + style.PANEL)
    for col, metric in enumerate(shown, start=1):
        for index, result in enumerate(results):
            for trace in _traces(result, metric, index):
                trace.showlegend = col == 1 and trace.mode == "lines+markers"
                figure.add_trace(trace, row=1, col=col)
        title = style.titled(QUANTITIES[metric], _unit(results, metric))
        figure.update_yaxes(title={"text": title}, row=1, col=col)
    style.layer_axis(figure, max(len(result.layers) for result in results))
    figure.update_yaxes(rangemode="tozero")
    return figure


def _unit(results: list[Result], metric: str) -> str:
    units = {u for r in results for u in depth.layer_means(r, metric).get("unit", [])}
    return units.pop() if len(units) == 1 else ""


def _traces(result: Result, metric: str, index: int) -> list[go.Scatter]:
    means = depth.layer_means(result, metric)
    if means.empty:
        return []
    name, colour = style.label(result.name), style.PALETTE[index]
    line = depth.mean_line(means, means["unit"].iloc[0], colour, name)
    line.legendgroup = f"model{index}"  # two models may share a name
    line.line.dash = style.DASHES[index]
    line.marker.update(symbol=style.SYMBOLS[index], size=8)
    band = depth.ribbon(means, colour, f"model{index}")
    return [line] if band is None else [band, line]


PLOT = Plot(
    "profiles",
    "Layer means side by side",
    ("layer_means",),
    _draw,
    caption="The mean over heads of each layer with its 95 % interval, for every model.",
    minimum=2,
)
