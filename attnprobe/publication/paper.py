"""Page figures to paper figures: black ink, a paper's type, sizes in inches and points.

Lengths are CSS pixels, 96 to the inch, which is what plotly lays out and Chrome prints.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from attnprobe.errors import AttnprobeError
from attnprobe.publication import cells, layout

INCH, POINT = 96.0, 96.0 / 72.0
WIDTHS = {"column": 3.25, "text": 6.75}
NARROWEST, WIDEST = 2.0, 20.0  # inches
SMALLEST, LARGEST = 5.0, 24.0  # points
# TrueType first: Chrome embeds other outlines as Type 3, which many publishers refuse
FONTS = {
    "serif": "Times New Roman, Liberation Serif, Tinos, STIX Two Text, Nimbus Roman, serif",
    "sans": "Arial, Liberation Sans, Arimo, Helvetica, Nimbus Sans, sans-serif",
}
INK, RULE = "#000000", "#E3E5E8"
NARROW, WIDE = 0.44, 0.5  # width of a letter of Times, and of most other type, in em
LINE, MARK = 0.55, 0.5  # how much thinner and smaller than on the page


@dataclass(frozen=True)
class Paper:
    """How figures are set.

    Attributes:
        width: Of every figure, in inches.
        font: Families in order of preference, as CSS has them.
        size: Of the type, in points.
    """

    width: float = WIDTHS["text"]
    font: str = FONTS["serif"]
    size: float = 8.0


def paper(width: str | float = "text", font: str = "serif", size: float = 8.0) -> Paper:
    """Read what people write: a named or numeric width, a named or any font family.

    >>> paper("column").width, paper(5).width
    (3.25, 5.0)

    Raises:
        AttnprobeError: The width or the size is no sensible number, or the font no name.
    """
    inches = WIDTHS.get(str(width)) or _number(width)
    if inches is None or not NARROWEST <= inches <= WIDEST:
        raise AttnprobeError(
            f"a width of {width!r} was asked for",
            f"give column, text or {NARROWEST:g} to {WIDEST:g} inches",
        )
    if not SMALLEST <= size <= LARGEST:
        raise AttnprobeError(
            f"a font size of {size:g} points was asked for",
            f"give {SMALLEST:g} to {LARGEST:g} points",
        )
    family = FONTS.get(font, font)
    if not re.fullmatch(r"[\w ,.+-]*\w[\w ,.+-]*", family):
        raise AttnprobeError(
            f"{font!r} names no font family", "give serif, sans or the name of a family"
        )
    return Paper(inches, family if font in FONTS else f"{family}, serif", float(size))


def typeset(figure: go.Figure, look: Paper) -> dict[str, Any]:
    """Return a page figure as a paper figure: traces and layout as plain JSON values."""
    em = look.size * POINT
    drawn = json.loads(cells.vector(figure).to_json() or "{}")
    for trace in drawn["data"]:
        _thin(trace)
    for moving in ("sliders", "updatemenus"):
        drawn["layout"].pop(moving, None)
    drawn["layout"] |= {"template": _template(look, em), "width": look.width * INCH}
    layout.arrange(drawn, em, NARROW if look.font == FONTS["serif"] else WIDE)
    return {"data": drawn["data"], "layout": drawn["layout"]}


def _number(text: str | float) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _thin(trace: dict[str, Any]) -> None:
    """Drop what only a pointer can see, and make lines and marks finer."""
    for key in [key for key in trace if key.startswith("hover")] + ["customdata", "text"]:
        if key != "text" or "text" not in trace.get("mode", ""):
            trace.pop(key, None)
    marker = trace.get("marker", {})
    for line in (trace.get("line", {}), marker.get("line", {})):
        if trace["type"] != "bar" and isinstance(line.get("width"), int | float):
            line["width"] = round(line["width"] * LINE, 2)
    if isinstance(marker.get("size"), int | float):
        marker["size"] = round(marker["size"] * MARK, 2)
    for error in ("error_x", "error_y"):
        if error in trace:
            trace[error] |= {"thickness": 0.8, "width": 1.5}


def _template(look: Paper, em: float) -> dict[str, Any]:
    """Replace the page's template, and with it all that the plots left to it."""
    axis = {
        "showgrid": True,
        "gridcolor": RULE,
        "gridwidth": 0.5,
        "griddash": "solid",
        "zeroline": False,
        "showline": True,
        "linecolor": INK,
        "linewidth": 0.67,
        "ticks": "outside",
        "ticklen": 2.5,
        "tickwidth": 0.67,
        "tickcolor": INK,
        "tickangle": 0,
        "ticklabeloverflow": "allow",
        "tickfont": {"size": em * 0.9},
        "title": {"standoff": em * 0.4, "font": {"size": em}},
        "automargin": True,
    }
    whole = {
        "font": {"family": look.font, "size": em, "color": INK},
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "xaxis": axis,
        "yaxis": axis,
        "hovermode": False,
    }
    return {"layout": whole}
