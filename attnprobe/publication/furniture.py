"""What stands around the panels of a figure: legend, colour bars, words and ticks."""

import textwrap
from html import unescape
from typing import Any

from attnprobe.publication.panels import Panel

LETTER = 0.5  # width of a letter in em, on average and rounded up
SYMBOL = 46.0  # px before and behind the words of a legend entry
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)
BAR = 1.8 * 96  # px; longest colour bar


def plain(text: str) -> str:
    """Return text as it will be seen, without markup.

    >>> plain("<b>a &lt; b</b>")
    'a < b'
    """
    return unescape(text.replace("<b>", "").replace("</b>", ""))


def legend(figure: dict[str, Any], em: float, letter: float) -> float:
    """Put the legend over the panels and return the height it takes.

    plotly gives all entries the width of the widest one as soon as they need two rows, and no
    row less than 16 px.

    Args:
        figure: Traces and layout.
        em: Size of the type.
        letter: Width of a letter of the type, in em.
    """
    layout = figure["layout"]
    layout["legend"] = {
        "orientation": "h",
        "x": 0,
        "xref": "container",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "traceorder": "normal",
        "font": {"size": em * 0.95},
        "bgcolor": "rgba(0,0,0,0)",
    }
    shown = [trace for trace in figure["data"] if _listed(trace)]
    if layout.get("showlegend") is False or len(shown) < (2 if len(figure["data"]) == 1 else 1):
        return 0.0
    room = layout["width"] - em
    each = letter * em * 0.95
    lines = [_wrap(trace, int((room - SYMBOL) / each)) for trace in shown]
    widths = [SYMBOL + each * len(max(parts, key=len)) for parts in lines]
    abreast = len(shown) if sum(widths) <= room else max(1, int(room // max(widths)))
    tall = [len(max(lines[at : at + abreast], key=len)) for at in range(0, len(lines), abreast)]
    return sum(max(16.0, count * 1.25 * em) + 3 for count in tall) + 0.4 * em


def bars(layout: dict[str, Any], em: float) -> tuple[float, float]:
    """Set the type of the colour bars; return the room they take at the right and on top."""
    right = top = 0.0
    for bar in _bars(layout).values():
        title = bar.setdefault("title", {})
        title["font"] = {"size": em}
        bar |= {"thickness": em * 0.8, "outlinewidth": 0, "tickfont": {"size": em * 0.9}}
        bar |= {"ticks": "outside", "ticklen": 2.5, "tickwidth": 0.67, "ypad": 0}
        if bar.get("orientation") == "h":
            bar |= {"len": min(bar.get("len", BAR), BAR), "lenmode": "pixels"}
            top = max(top, 3.0 * em)
        else:
            long = len(plain(title.get("text", ""))) > 6
            title["side"] = "right" if long else "top"
            right = max(right, (6.0 if long else 4.4) * em)
    return right, top


def several(layout: dict[str, Any]) -> bool:
    """Whether panels have upright colour bars of their own."""
    return sum(bar.get("orientation") != "h" for bar in _bars(layout).values()) > 1


def stand(figure: dict[str, Any], panels: list[Panel], down: float, em: float) -> None:
    """Stand every upright colour bar beside its panel, or one for all beside the top one.

    Args:
        figure: Traces and layout.
        panels: With their places.
        down: Height of all panels together, in pixels.
        em: Size of the type.
    """
    upright = {
        k: bar for k, bar in _bars(figure["layout"]).items() if bar.get("orientation") != "h"
    }
    for name, bar in upright.items():
        mine = _owners(figure, name) if len(upright) > 1 else set()
        panel = next((panel for panel in panels if panel.name in mine), None)
        low, high = panel.y["domain"] if panel else (0.0, 1.0)
        bar |= {"len": min((high - low) * down, BAR), "lenmode": "pixels", "xpad": em * 0.6}
        bar |= {"x": panel.x["domain"][1] if panel else 1, "xanchor": "left"}
        bar |= {"y": high, "yanchor": "top"}


def _owners(figure: dict[str, Any], scale: str) -> set[str]:
    """Return the horizontal axes of the traces that a colour scale is for."""
    traces = figure["data"]
    return {t.get("xaxis", "x") for t in traces if t.get("marker", {}).get("coloraxis") == scale}


def words(layout: dict[str, Any], em: float) -> None:
    """Set every annotation in the type of the paper, small ones a little smaller."""
    for word in layout.get("annotations", []):
        small = word.get("font", {}).get("size", 14) <= 11
        word["font"] = {**word.get("font", {}), "size": em * (0.78 if small else 1)}
        if small:
            word |= {"borderpad": 0, "yshift": word.get("yshift", 0) - 1.5}
        if word.get("yshift", 0) > 0:
            word["yshift"] = em * 1.1


def thin(axis: dict[str, Any], length: float, letter: float, em: float) -> None:
    """Print as many numbers on an axis as its length in pixels has room for.

    Args:
        axis: In the layout.
        length: Of the axis.
        letter: Extent of one letter along the axis, in em; zero when lines are stacked.
        em: Size of the type.
    """
    places, ends = axis.get("tickvals"), axis.get("range")
    if not places or not ends:
        axis.setdefault("nticks", max(3, int(length / (em * (3.2 if letter else 1.9)))))
        return
    names = axis.get("ticktext") or [f"{place:g}" for place in places]
    wide = (letter * max(map(len, names)) + 0.5 if letter else 1.1) * em * 0.9
    each = length / abs(ends[1] - ends[0]) * (places[-1] - places[0]) / max(1, len(places) - 1)
    step = next((n for n in STEPS if n * each >= wide), STEPS[-1])
    axis["tickvals"] = places[::step]
    if "ticktext" in axis:
        axis["ticktext"] = names[::step]


def _listed(trace: dict[str, Any]) -> bool:
    return bool(trace.get("name") and trace.get("x")) and trace.get("showlegend") is not False


def _wrap(trace: dict[str, Any], letters: int) -> list[str]:
    """Break a name that is wider than the figure, and return its lines."""
    width = max(letters, 8)
    parts = textwrap.wrap(trace["name"], width, break_long_words=False) or [" "]
    trace["name"] = "<br>".join(parts)
    return [plain(part) for part in parts]


def _bars(layout: dict[str, Any]) -> dict[str, dict[str, Any]]:
    scales = {name: layout[name] for name in layout if name.startswith("coloraxis")}
    shown = {name: scale for name, scale in scales.items() if scale.get("showscale", True)}
    return {name: scale.setdefault("colorbar", {}) for name, scale in shown.items()}
