"""The look that all figures share: type, panels, axes and text that is safe to draw.

Grey lines are translucent and backgrounds clear, so that a figure suits any page.
"""

from collections.abc import Iterable
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.errors import ResultError
from attnprobe.plots import MOST, PALETTE
from attnprobe.results import Result

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
DASHES = ("solid", "dash", "dashdot", "longdash", "dot", "longdashdot", "solid", "dash")
GREY = "rgba(128,134,143,{})"
RATIO = "of uniform"
EMPTY = pd.DataFrame({"unit": ["px"]})
SEQUENTIAL = "Viridis"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4}
PANEL = 360

_AXIS = {
    "showgrid": True,
    "gridcolor": GREY.format(0.18),
    "zeroline": False,
    "linecolor": GREY.format(0.5),
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": GREY.format(0.5),
    "title": {"standoff": 8, "font": {"size": 13}},
    "automargin": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": "#6B7280"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(PALETTE),
        "margin": {"l": 64, "r": 16, "t": 48, "b": 52},
        "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 13}},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


def panels(results: list[Result], *, square: bool = False) -> go.Figure:
    """Figure with one titled panel a model; a single model needs no title.

    Raises:
        ResultError: There are no results, or more than eight.
    """
    if not 1 <= len(results) <= MOST:
        raise ResultError(
            f"a figure takes 1 to {MOST} results, not {len(results)}",
            "choose the models that matter most",
        )
    count = len(results)
    cols = COLUMNS[count]
    rows = -(-count // cols)
    shared: Any = False if square else "all"  # plotly documents the word, its types do not
    figure = make_subplots(
        rows=rows,
        cols=cols,
        shared_yaxes=shared,
        horizontal_spacing=0.12 / cols if square else 0.05 / cols,
        vertical_spacing=0.28 / rows if rows > 1 else 0,
        subplot_titles=None if count == 1 else [label(result.name) for result in results],
    )
    top = 16 if square and count == 1 else 48 if square or count == 1 else 72
    figure.update_layout(template=TEMPLATE, margin={"t": top}, height=top + rows * PANEL)
    figure.update_annotations(font={"size": 14})
    return figure


def spot(results: list[Result], index: int) -> tuple[int, int]:
    """Row and column of the panel of result `index`, counted from 1.

    >>> spot([None] * 3, 2)
    (1, 3)
    """
    cols = COLUMNS[len(results)]
    return index // cols + 1, index % cols + 1


def label(name: str, limit: int = 28) -> str:
    """Name shortened and escaped, because plotly reads a subset of HTML in any text.

    >>> label("<b>vit</b>")
    '&lt;b&gt;vit&lt;/b&gt;'
    """
    short = name if len(name) <= limit else name[: limit - 1] + "…"
    return escape(short, quote=False)


def shared(results: list[Result], table: str) -> str:
    """The one unit of a table in all results.

    Raises:
        ResultError: The results disagree, so that one axis cannot show them.
    """
    return agreed({unit for result in results for unit in result.tables[table]["unit"]}, table)


def agreed(units: set[str], quantity: str) -> str:
    """The one unit among those found.

    Raises:
        ResultError: There are several.
    """
    if len(units) > 1:
        raise ResultError(
            f"the results give {quantity} in different units: {', '.join(sorted(units))}",
            "measure the models with the same options",
        )
    return next(iter(units), "")


def scale(results: list[Result], metric: str) -> str:
    """Return the scale on which models compare: `value`, or `of uniform`.

    Pixels of inputs of different size and entropies over different numbers of keys differ for
    that reason alone; as parts of what uniform attention would give they do not.
    """
    if metric == "distance":
        sides: Iterable[Any] = (tuple(r.model.get("input_size") or ()) for r in results)
        if any("px" not in {*r.tables.get(metric, EMPTY)["unit"]} for r in results):
            sides = (tuple(sorted({*r.layers["distance_uniform"]})) for r in results)
        return "value" if _alike(sides) else RATIO
    if metric == "entropy":
        keys = (tuple(sorted({*result.layers["patches"]})) for result in results)
        return "value" if _alike(keys) else RATIO
    return "value"


def _alike(values: Iterable[Any]) -> bool:
    return len(set(values)) <= 1


def same_depth(results: list[Result]) -> bool:
    """Whether all models have the same number of layers."""
    return _alike(len(result.layers) for result in results)


def relative_axis(figure: go.Figure) -> None:
    """Go from the first layer to the last on the horizontal axes, whatever their number."""
    figure.update_xaxes(
        title={"text": "Relative depth"},
        tickmode="array",
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        ticktext=["first", "¼", "½", "¾", "last"],
        range=[-0.04, 1.04],
        showgrid=False,
    )


def titled(quantity: str, unit: str) -> str:
    """Axis title with its unit.

    >>> titled("Entropy", "nats")
    'Entropy (nats)'
    """
    return f"{quantity} ({unit})" if unit else quantity


def interval(low: Any, high: Any, level: float = 0.95) -> str:
    """Text of an interval, empty where there were too few images for one."""
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"<br>{100 * level:g} % interval {low:.4g} to {high:.4g}"


def band(
    ends: list[tuple[float, float, float]], colour: str, group: str, opacity: float
) -> list[go.Scatter]:
    """Intervals (place, low, high) as one ribbon; nothing where there are none."""
    outline = [(x, high) for x, _, high in ends] + [(x, low) for x, low, _ in reversed(ends)]
    ribbon = go.Scatter(
        name="interval",
        legendgroup=group,
        mode="lines",
        x=[x for x, _ in outline],
        y=[y for _, y in outline],
        fill="toself",
        fillcolor=colour,
        opacity=opacity,
        line={"width": 0, "color": colour},
        hoverinfo="skip",
        showlegend=False,
    )
    return [ribbon] if ends else []


def ticks(depth: int) -> list[int]:
    """Layer numbers to print on an axis, counted from 1 and thinned in deep models.

    >>> ticks(3)
    [1, 2, 3]
    """
    step = 1 if depth <= 14 else 2 if depth <= 28 else 4
    return list(range(1, depth + 1, step))


def layer_axis(figure: go.Figure, depth: int, **panel: int) -> None:
    """Number layers from 1 on the horizontal axes, or on that of one panel (row, col)."""
    figure.update_xaxes(
        title={"text": "Layer (1 = first)"},
        tickmode="array",
        tickvals=ticks(depth),
        range=[0.4, depth + 0.6],
        showgrid=False,
        **panel,  # type: ignore[arg-type]
    )
