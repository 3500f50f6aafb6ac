"""Attention that patches give to each prefix token, head by head, against depth."""

import plotly.graph_objects as go

from attnprobe.frames import known, layer_means
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _depth as depth
from attnprobe.plots import _style as style
from attnprobe.results import Result

TABLE = "prefix_mass"
TOTAL = "all prefix tokens together, mean of heads, 95 % interval"
INK = "#80868F"


def _draw(results: list[Result]) -> go.Figure:
    figure = style.panels(results)
    unit = style.shared(results, TABLE)
    tokens = list(dict.fromkeys(str(t) for r in results for t in r.tables[TABLE]["token"]))
    named = {"interval"}
    for index, result in enumerate(results):
        row, col = style.spot(results, index)
        for trace in _traces(result, tokens, unit):
            trace.showlegend = bool(trace.x) and str(trace.name) not in named
            named |= {str(trace.name)} if trace.x else set()
            figure.add_trace(trace, row=row, col=col)
    depth.finish(figure, results, style.titled("Attention on prefix tokens", unit))
    return figure


def _traces(result: Result, tokens: list[str], unit: str) -> list[go.Scatter]:
    """Dots of each token, and the layer means, which add the tokens up."""
    table, means = known(result.tables[TABLE], "value"), layer_means(result, TABLE)
    single = len(tokens) == 1
    colour = PALETTE[0] if single else INK
    line = depth.Marks(colour, depth.MEAN if single else TOTAL, "mean")
    heads = [
        depth.dots(table.loc[table["token"] == token], result, unit, _marks(token, rank))
        for rank, token in enumerate(tokens)
    ]
    band = depth.ribbon(means, colour, "mean")
    return [*band, *depth.uniform(means), *heads, *depth.mean_line(means, unit, line)]


def _marks(token: str, rank: int) -> depth.Marks:
    name = style.label(token)
    colour, symbol = PALETTE[rank % len(PALETTE)], style.SYMBOLS[rank % len(style.SYMBOLS)]
    return depth.Marks(colour, f"{name}, one head", name, symbol=symbol, size=6)


PLOT = Plot(
    TABLE,
    "Attention on prefix tokens by layer",
    (TABLE,),
    _draw,
    caption="The share of a patch's attention that goes to each token without a place in the "
    "image (class token, registers); one small mark a head, set apart sideways by head number. "
    "The line adds the tokens up and averages the heads.",
)
