"""Divergence of every head from every other one: a small square for each layer.

The squares of a model lie in one heat map with empty rows and columns between them, since
hundreds of panels of their own would take seconds to draw.
"""

from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.frames import known, rows
from attnprobe.plots import Plot
from attnprobe.plots import _style as style
from attnprobe.results import Result

TABLE = "head_kl"
ACROSS = 6
ROW, TITLE = 156, 26  # height in pixels of a row of squares, and of a model's name

# above the first column, where a narrow screen starts
BAR = {
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "xpad": 0,
    "y": 1,
    "yref": "container",
    "yanchor": "top",
    "lenmode": "pixels",
    "len": 240,
    "thickness": 12,
    "outlinewidth": 0,
}


def _draw(results: list[Result]) -> go.Figure:
    style.panels(results)  # refuses too few and too many
    unit = style.shared(results, TABLE)
    tables = [known(result.tables[TABLE], "value") for result in results]
    tall = [-(-len(_heads(table)) // ACROSS) for table in tables]
    title = TITLE if len(results) > 1 else 0
    height = ROW * sum(tall) + title * len(results)
    gap = title / height
    figure = make_subplots(rows=len(results), cols=1, row_heights=tall, vertical_spacing=gap)
    titles: list[dict[str, Any]] = []
    for index, result in enumerate(results):
        titles += _add(figure, tables[index], index + 1, name=result.name if title else "")
    figure.update_traces(hovertemplate=f"%{{text}}<br>%{{z:.4g}} {unit}<extra></extra>")
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(
        visible=False, constrain="domain", constraintoward="top", autorange="reversed"
    )
    top = max(row.value for table in tables for row in rows(table))
    bar = {**BAR, "title": {"text": unit, "side": "right", "font": {"size": 13}}}
    figure.update_layout(
        template=style.TEMPLATE,
        annotations=titles,  # one by one, plotly takes time quadratic in their number
        height=height + 88,
        margin={"l": 16, "t": 76 + title, "b": 12},
        coloraxis={"colorscale": style.SEQUENTIAL, "cmin": 0, "cmax": top, "colorbar": bar},
        meta={"narrowest": 820, "widest": 1000},
    )
    return figure


def _heads(table: pd.DataFrame) -> dict[int, int]:
    """Heads of each layer, in layer order."""
    heads: dict[int, int] = {}
    for row in rows(table):
        heads[row.layer] = max(heads.get(row.layer, 0), row.head_a + 1)
    return dict(sorted(heads.items()))


def _add(figure: go.Figure, table: pd.DataFrame, panel: int, *, name: str) -> list[dict[str, Any]]:
    """Draw one model's squares and return their titles."""
    heads = _heads(table)
    side = max(heads.values())
    pitch = side + max(1, round(side / 4))
    corners = {
        layer: (rank // ACROSS * pitch, rank % ACROSS * pitch) for rank, layer in enumerate(heads)
    }
    scale = {layer: side // count for layer, count in heads.items()}
    figure.add_trace(_mosaic(table, corners, scale, pitch), row=panel, col=1)
    axis = "" if panel == 1 else str(panel)
    figure.update_yaxes(scaleanchor=f"x{axis}", row=panel, col=1)
    titles = [_title(f"layer {layer + 1}", corner, axis) for layer, corner in corners.items()]
    over = _title(f"<b>{style.label(name)}</b>", (0, 0), axis, lift=17)
    return [*titles, over] if name else titles


def _title(text: str, corner: tuple[int, int], axis: str, *, lift: int = 0) -> dict[str, Any]:
    return {
        "text": text,
        "x": corner[1] - 0.5,
        "y": corner[0] - 0.5,
        "xref": f"x{axis}",
        "yref": f"y{axis}",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": lift,
        "showarrow": False,
        "font": {"size": 13 if lift else 11},
    }


def _mosaic(
    table: pd.DataFrame, corners: dict[int, tuple[int, int]], scale: dict[int, int], pitch: int
) -> go.Heatmap:
    """All squares of a model; layers of fewer heads have larger cells."""
    width = min(len(corners), ACROSS) * pitch
    height = -(-len(corners) // ACROSS) * pitch
    z: list[list[float | None]] = [[None] * width for _ in range(height)]
    text = [[""] * width for _ in range(height)]
    for row in rows(table):
        (top, left), size = corners[row.layer], scale[row.layer]
        value = float(f"{row.value:.6g}")
        words = f"layer {row.layer + 1}: head {row.head_a + 1} from head {row.head_b + 1}"
        for down, right in product(range(size), repeat=2):
            y, x = top + row.head_a * size + down, left + row.head_b * size + right
            z[y][x], text[y][x] = value, words
    return go.Heatmap(
        z=z,
        text=text,
        coloraxis="coloraxis",
        hoverongaps=False,
    )


PLOT = Plot(
    "head_kl_pairs",
    "Divergence between pairs of heads",
    (TABLE,),
    _draw,
    caption="One square a layer: the row is the head that diverges, the column the head it "
    "diverges from. The diagonal, a head against itself, is left empty.",
)
