"""Similarity of the outputs of every pair of layers: one square heat map a model."""

import pandas as pd
import plotly.graph_objects as go

from attnprobe.plots import Plot
from attnprobe.plots import _style as style
from attnprobe.results import Result


def _draw(results: list[Result]) -> go.Figure:
    figure = style.panels(results, square=True)
    for index, result in enumerate(results):
        row, col = style.spot(results, index)
        figure.add_trace(_square(result), row=row, col=col)
        side = f"x{index + 1}" if index else "x"
        ticks = style.ticks(len(result.layers))
        figure.update_yaxes(scaleanchor=side, tickvals=ticks, row=row, col=col)
        figure.update_xaxes(tickvals=ticks, row=row, col=col)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(constrain="domain", showgrid=False, showline=False, ticks="")
    figure.update_xaxes(title={"text": "Layer (1 = first)"})
    figure.update_yaxes(title={"text": "Layer"}, col=1)
    bar = {"title": {"text": "CKA", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    figure.update_layout(
        coloraxis={"colorscale": style.SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar}
    )
    if len(results) == 1:
        figure.update_layout(height=480, meta={"narrowest": 320, "widest": 620})
    return figure


def _square(result: Result) -> go.Heatmap:
    table = result.tables["cka"]
    value = table.pivot(index="layer_a", columns="layer_b", values="value")
    low, high = (
        table.pivot(index="layer_a", columns="layer_b", values=end) for end in ("low", "high")
    )
    return go.Heatmap(
        x=[layer + 1 for layer in value.columns],
        y=[layer + 1 for layer in value.index],
        z=_cells(value),
        coloraxis="coloraxis",
        hoverinfo="text",
        hovertext=[
            [
                f"layers {a + 1} and {b + 1}<br>CKA {value.at[a, b]:.3f}"
                f"{style.interval(low.at[a, b], high.at[a, b])}"
                for b in value.columns
            ]
            for a in value.index
        ],
    )


def _cells(frame: pd.DataFrame) -> list[list[float | None]]:
    return frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


PLOT = Plot(
    "cka",
    "Similarity between layers",
    ("cka",),
    _draw,
    caption="Centred kernel alignment of the block outputs, for every pair of layers: 1 for "
    "equal up to rotation and scale, about 0 for unrelated.",
)
