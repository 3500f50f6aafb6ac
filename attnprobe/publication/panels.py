"""The panels of a figure: which axes belong together, and where they stand on the page."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: Of its horizontal axis, as traces have it.
        x: Horizontal axis in the layout.
        y: Vertical axis in the layout.
        spot: Row and column on the page, from 0 at the top left.
        title: Its title among the annotations, if it has one.
        cells: Height over width of what it shows, where cells are square.
        lift: Room above it for words, in em.
    """

    name: str
    x: dict[str, Any]
    y: dict[str, Any]
    spot: tuple[int, int]
    title: dict[str, Any] | None
    cells: float | None
    lift: float

    @property
    def bare(self) -> bool:
        """Whether it has no ticks and no axis titles."""
        return self.y.get("visible") is False


def panels(figure: dict[str, Any]) -> list[Panel]:
    """Return the panels in reading order; none where axes overlie others or differ in width.

    Axes that nothing is drawn on, at the end of a row, are hidden.
    """
    layout = figure["layout"]
    drawn = {trace.get("xaxis", "x") for trace in figure["data"]}
    pairs = []
    for name, x, y in _pairs(layout):
        if name in drawn:
            pairs.append((name, x, y))
        else:
            x["visible"] = y["visible"] = False
    widths = {round(x["domain"][1] - x["domain"][0], 2) for _, x, _ in pairs}
    if len(widths) != 1 or any("overlaying" in axis for _, x, y in pairs for axis in (x, y)):
        return []
    lefts = sorted({round(x["domain"][0], 2) for _, x, _ in pairs})
    tops = sorted({round(y["domain"][1], 2) for _, _, y in pairs}, reverse=True)
    found = [
        _panel(layout, name, (tops.index(round(y["domain"][1], 2)), _at(lefts, x)), x, y)
        for name, x, y in pairs
    ]
    spots = {panel.spot for panel in found}
    return sorted(found, key=lambda panel: panel.spot) if len(spots) == len(found) else []


def movable(found: list[Panel]) -> bool:
    """Whether the panels may be set in other rows than on the page.

    Rows that mean something have one title, or one scale, for many panels.
    """
    rows, columns = ({panel.spot[way] for panel in found} for way in (0, 1))
    apart = share(found) or not hushed(found)
    return apart and (min(len(rows), len(columns)) == 1 or all(panel.title for panel in found))


def share(found: Collection[Panel]) -> bool:
    """Whether all panels have one vertical scale."""
    followers = [panel for panel in found if "matches" in panel.y]
    return len(found) > 1 and len(followers) >= len(found) - 1


def hushed(found: Collection[Panel]) -> bool:
    """Whether the page numbers the vertical axes of its first column alone."""
    others = [panel.y for panel in found if panel.spot[1]]
    quiet = [axis for axis in others if False in (axis.get("showticklabels"), axis.get("visible"))]
    return bool(others) and len(quiet) == len(others)


def _at(lefts: list[float], x: dict[str, Any]) -> int:
    return lefts.index(round(x["domain"][0], 2))


def _pairs(layout: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Horizontal axes by their short name, each with the vertical one it is anchored to."""
    for key, x in layout.items():
        y = layout.get(f"yaxis{x.get('anchor', 'y')[1:]}") if key.startswith("xaxis") else None
        if y is not None:
            x.setdefault("domain", [0, 1])
            y.setdefault("domain", [0, 1])
            yield key.replace("axis", ""), x, y


def _panel(
    layout: dict[str, Any],
    name: str,
    spot: tuple[int, int],
    x: dict[str, Any],
    y: dict[str, Any],
) -> Panel:
    words = layout.get("annotations", [])
    middle, top = sum(x["domain"]) / 2, y["domain"][1]
    over = [
        word
        for word in words
        if word.get("xref") == word.get("yref") == "paper"
        and abs(word["x"] - middle) < 0.01
        and abs(word["y"] - top) < 0.01
    ]
    inside = [word.get("yshift", 0) for word in words if _heads(word, name, y)]
    lift = 1.5 if over else 1.3 + 1.2 * (max(inside) > 0) if inside else 0
    return Panel(name, x, y, spot, over[0] if over else None, _cells(x, y), lift)


def _heads(word: dict[str, Any], name: str, y: dict[str, Any]) -> bool:
    """Whether words stand over a panel: at its edge, or anywhere in one without axes."""
    reference, *whole = word.get("xref", "").split()
    if reference != name:
        return False
    return word["y"] >= 1 if whole else y.get("visible") is False


def _cells(x: dict[str, Any], y: dict[str, Any]) -> float | None:
    """Return height over width of square cells, from the ranges of the two axes."""
    if "scaleanchor" not in y or not x.get("range") or not y.get("range"):
        return None
    wide, high = (abs(axis["range"][1] - axis["range"][0]) for axis in (x, y))
    return high / wide
