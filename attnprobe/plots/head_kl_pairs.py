"""Divergence of every head from every other one: a small square for each layer.

The squares of a model lie in one heat map with empty rows and columns between them, since
hundreds of panels of their own would take seconds to draw.
"""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import known, rows
from attnprobe.plots import Plot
from attnprobe.plots import _style as style
from attnprobe.results import Result

TABLE = "head_kl"
ACROSS = 6
GAP = 3


def _draw(results: list[Result]) -> go.Figure:
    style.panels(results)  # refuses too few and too many
    unit = style.shared(results, TABLE)
    tall = [-(-_depth(result) // ACROSS) for result in results]
    figure = make_subplots(rows=len(results), cols=1, row_heights=tall, vertical_spacing=0.0)
    for index, result in enumerate(results):
        _add(figure, result, index, named=len(results) > 1)
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain", autorange="reversed")
    bar = {"title": {"text": unit, "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    top = max(row.value for r in results for row in rows(known(r.tables[TABLE], "value")))
    figure.update_layout(
        template=style.TEMPLATE,
        height=24 + 156 * sum(tall) + 20 * len(results),
        margin={"l": 16, "t": 12, "b": 12},
        coloraxis={"colorscale": style.SEQUENTIAL, "cmin": 0, "cmax": top, "colorbar": bar},
        meta={"narrowest": 620, "widest": 1000},
    )
    return figure


def _depth(result: Result) -> int:
    return len({row.layer for row in rows(result.tables[TABLE])})


def _add(figure: go.Figure, result: Result, index: int, *, named: bool) -> None:
    table = result.tables[TABLE]
    pitch = 1 + max(row.head_a for row in rows(table)) + GAP
    layers = sorted({row.layer for row in rows(table)})
    figure.add_trace(_mosaic(result, layers, pitch), row=index + 1, col=1)
    axis = f"y{index + 1}" if index else "y"
    figure.update_yaxes(scaleanchor=axis.replace("y", "x"), row=index + 1, col=1)
    for rank, layer in enumerate(layers):
        title = f"layer {layer + 1}"
        if named and rank == 0:
            title = f"<b>{style.label(result.name, 20)}</b> {title}"
        figure.add_annotation(
            text=title,
            x=rank % ACROSS * pitch - 0.5,
            y=rank // ACROSS * pitch - 0.6,
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11},
            row=index + 1,
            col=1,
        )


def _mosaic(result: Result, layers: list[int], pitch: int) -> go.Heatmap:
    width = min(len(layers), ACROSS) * pitch
    height = -(-len(layers) // ACROSS) * pitch
    z: list[list[float | None]] = [[None] * width for _ in range(height)]
    text = [[""] * width for _ in range(height)]
    place = {layer: (i // ACROSS * pitch, i % ACROSS * pitch) for i, layer in enumerate(layers)}
    for row in rows(known(result.tables[TABLE], "value")):
        top, left = place[row.layer]
        z[top + row.head_a][left + row.head_b] = float(f"{row.value:.6g}")
        text[top + row.head_a][left + row.head_b] = (
            f"layer {row.layer + 1}: head {row.head_a + 1} from head {row.head_b + 1}"
            f"<br>{row.value:.4g} {row.unit}{style.interval(row.low, row.high)}"
        )
    return go.Heatmap(
        z=z, hovertext=text, hoverinfo="text", coloraxis="coloraxis", hoverongaps=False
    )


PLOT = Plot(
    "head_kl_pairs",
    "Divergence between pairs of heads",
    (TABLE,),
    _draw,
    caption="One square a layer: the row is the head that diverges, the column the head it "
    "diverges from. The diagonal, a head against itself, is left empty.",
)
