"""Attention that patches give to each prefix token, head by head, against depth."""

import pandas as pd
import plotly.graph_objects as go

from attnprobe.plots import Plot
from attnprobe.plots import _depth as depth
from attnprobe.plots import _style as style
from attnprobe.results import Result

TABLE = "prefix_mass"


def _draw(results: list[Result]) -> go.Figure:
    figure = style.panels(results)
    unit = style.shared(results, TABLE)
    seen: set[str] = set()
    tokens = list(dict.fromkeys(t for result in results for t in result.tables[TABLE]["token"]))
    for index, result in enumerate(results):
        for token, heads in result.tables[TABLE].groupby("token", sort=False):
            for trace in _traces(result, str(token), heads, unit, tokens.index(token)):
                trace.showlegend = trace.mode == "markers" and token not in seen
                figure.add_trace(trace, **style.spot(results, index))
            seen.add(str(token))
    style.layer_axis(figure, max(len(result.layers) for result in results))
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title={"text": style.titled("Attention on prefix token", unit)}, col=1)
    return figure


def _traces(
    result: Result, token: str, heads: pd.DataFrame, unit: str, rank: int
) -> list[go.Scatter]:
    colour = style.PALETTE[rank % len(style.PALETTE)]
    dots = depth.dots(heads.dropna(subset=["value"]), result, unit, colour)
    dots.name = dots.legendgroup = style.label(token)
    dots.marker.symbol = style.SYMBOLS[rank % len(style.SYMBOLS)]
    dots.marker.opacity = 0.75
    dots.hovertext = [f"{style.label(token)}, {text}" for text in dots.hovertext]
    means = _means(result, token)
    if means.empty:
        return [dots]
    line = depth.mean_line(means, unit, colour, style.label(token))
    band = depth.ribbon(means, colour, style.label(token))
    return [trace for trace in (band, dots, line) if trace is not None]


def _means(result: Result, token: str) -> pd.DataFrame:
    """Layer means of one token, where the table tells tokens apart."""
    means = depth.layer_means(result, TABLE)
    if "token" in means.columns and means["token"].notna().any():
        return means[means["token"] == token]
    if result.tables[TABLE]["token"].nunique() == 1:
        return means
    return depth.layer_means(result, f"{TABLE}:{token}")


PLOT = Plot(
    "prefix_mass",
    "Attention on prefix tokens by layer",
    (TABLE,),
    _draw,
    caption="The share of a patch's attention that goes to each token without a place in the "
    "image (class token, registers); one mark a head, set apart sideways by head number.",
)
