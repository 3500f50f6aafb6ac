"""Similarity of the layers of the first model to those of every other one."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.comparison import Comparison
from attnprobe.plots import Plot
from attnprobe.plots import _pairs as pairs
from attnprobe.plots import _style as style


def _draw(comparison: Comparison) -> go.Figure:
    held = list(pairs.against_first(comparison, "cross_cka"))
    cols = min(len(held), 3)
    rows = -(-len(held) // cols)
    figure = make_subplots(
        rows=rows, cols=cols, horizontal_spacing=0.14 / cols, vertical_spacing=0.22 / rows
    )
    for at, (other, part) in enumerate(held):
        place: dict[str, Any] = {"row": at // cols + 1, "col": at % cols + 1}
        figure.add_trace(_square(comparison, other, part), **place)
        axis = f"x{at + 1}" if at else "x"
        name = style.label(comparison.results[other].name)
        ticks = (style.ticks(len(comparison.results[model].layers)) for model in (other, 0))
        figure.update_xaxes(title={"text": f"Layer of {name}"}, tickvals=next(ticks), **place)
        figure.update_yaxes(scaleanchor=axis, tickvals=next(ticks), **place)
    first = style.label(comparison.results[0].name)
    figure.update_yaxes(title={"text": f"Layer of {first}"}, col=1)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(constrain="domain", showgrid=False, showline=False, ticks="")
    bar = {"title": {"text": "CKA", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    meta = {"narrowest": 320 * cols, "widest": 640 if cols == 1 else 560 * cols}
    figure.update_layout(
        template=style.TEMPLATE,
        coloraxis={"colorscale": style.SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar},
        height=64 + rows * (460 if cols == 1 else 400),
        margin={"t": 16},
        meta=meta,
    )
    return figure


def _square(comparison: Comparison, other: int, part: pd.DataFrame) -> go.Heatmap:
    value, low, high = (
        part.pivot(index="layer_a", columns="layer_b", values=column)
        for column in ("value", "low", "high")
    )
    level = comparison.options.confidence
    names = [style.label(comparison.results[at].name) for at in (0, other)]
    return go.Heatmap(
        x=[layer + 1 for layer in value.columns],
        y=[layer + 1 for layer in value.index],
        z=value.to_numpy().tolist(),
        coloraxis="coloraxis",
        hoverinfo="text",
        hovertext=[
            [
                f"{names[0]}, layer {a + 1}<br>{names[1]}, layer {b + 1}<br>"
                f"CKA {value.at[a, b]:.3f}{style.interval(low.at[a, b], high.at[a, b], level)}"
                for b in value.columns
            ]
            for a in value.index
        ],
    )


PLOT = Plot(
    "cross_cka",
    "Similarity across models",
    ("cross_cka",),
    _draw,
    caption="Centred kernel alignment of the block outputs of the first model with those of each "
    "other one, for every pair of layers: 1 for equal up to rotation and scale, about 0 for "
    "unrelated.",
    of="comparison",
)
