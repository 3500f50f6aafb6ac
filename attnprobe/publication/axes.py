"""Ticks and titles of axes: said once where panels share them."""

import math
import textwrap
from collections.abc import Collection
from typing import Any, Literal

from attnprobe.publication import furniture
from attnprobe.publication.panels import Panel, share

TICKS = 5  # on a vertical axis, about

Spots = dict[tuple[int, int], Panel]
Letter = Literal["x", "y"]


def titles(panels: Collection[Panel], letter: Letter) -> set[str]:
    """Return the titles that the axes of panels bear."""
    axes = [getattr(panel, letter) for panel in panels]
    return {text for axis in axes if (text := axis.get("title", {}).get("text"))}


def alike(panels: Collection[Panel]) -> bool:
    """Whether all horizontal axes read the same, so that one of a column can carry the ticks."""
    seen = {str((panel.x.get("range"), panel.x.get("tickvals"))) for panel in panels}
    return len(seen) == 1 and all(panel.x.get("range") for panel in panels)


def lines(panels: Collection[Panel], height: float, em: float) -> int:
    """Return how many lines the longest vertical title needs beside panels of a height."""
    longest = max((len(text) for text in titles(panels, "y")), default=0)
    return math.ceil(longest * furniture.LETTER * em / height) or 1


def letters(traces: list[dict[str, Any]], panels: Collection[Panel]) -> int:
    """Return about how many letters the longest number on a vertical axis has."""
    return max((_letters(traces, panel) for panel in panels if not panel.bare), default=0)


def _letters(traces: list[dict[str, Any]], panel: Panel) -> int:
    names = panel.y.get("ticktext") or [f"{place:g}" for place in panel.y.get("tickvals", ())]
    if names:
        return max(map(len, names))
    mine = [trace.get("y") for trace in traces if trace.get("xaxis", "x") == panel.name]
    numbers = [n for ys in mine if isinstance(ys, list) for n in ys if isinstance(n, int | float)]
    numbers += [0.0] if panel.y.get("rangemode") == "tozero" else []
    ends = panel.y.get("range") or ([min(numbers), max(numbers)] if numbers else [0.0, 1.0])
    reach = abs(ends[1] - ends[0]) or 1.0
    places = max(0, math.ceil(-math.log10(reach / TICKS)))
    return max(len(f"{end:.{places}f}") for end in ends)


def finish(spots: Spots, wide: float, rows: list[float], em: float) -> None:
    """Thin the ticks of panels in their grid, and leave out what a neighbour says."""
    found = spots.values()
    moved = any(panel.spot != spot for spot, panel in spots.items())
    shared, same = share(found), alike(found)
    under, beside, wrapped = titles(found, "x"), titles(found, "y"), lines(found, min(rows), em)
    for (row, col), panel in spots.items():
        if panel.bare:
            continue
        last = (row + 1, col) not in spots or spots[row + 1, col].bare
        if moved:
            panel.y["showticklabels"] = col == 0 or not shared
            _entitle(panel.y, beside if col == 0 or len(beside) > 1 else set())
            _entitle(panel.x, under)
        if not last and same:
            panel.x["showticklabels"] = False
        if not last and len(under) == 1:
            panel.x.pop("title", None)
        words = panel.y.get("title", {})
        words["text"] = _broken(words.get("text", ""), wrapped)
        furniture.thin(panel.x, wide, furniture.LETTER, em)
        high = min(rows[row], wide * panel.cells) if panel.cells else rows[row]
        furniture.thin(panel.y, high, 0, em)


def _broken(text: str, count: int) -> str:
    """Break a title into lines of about the same length."""
    parts = textwrap.wrap(text, max(8, math.ceil(len(text) / count) + 4)) if text else []
    return "<br>".join(parts) if count > 1 else text


def _entitle(axis: dict[str, Any], names: set[str]) -> None:
    """Give an axis the title that all have in common, or none; leave different ones alone."""
    if len(names) < 2:
        axis["title"] = {**axis.get("title", {}), "text": "".join(names)}
