"""Place the panels of a figure for a width in pixels.

On the page a figure is as wide as the screen; on paper its panels may need fewer columns,
and every gap follows from the size of the type.
"""

from dataclasses import dataclass, replace
from typing import Any

from attnprobe.publication import axes, furniture
from attnprobe.publication.panels import Panel, hushed, movable, panels, share

INCH = 96.0
TALLEST = 9 * INCH  # what a page has room for
NARROW, NARROW_CELLS, NARROW_BARE = 1.15 * INCH, 0.85 * INCH, 2.9 * INCH  # least widths of a panel
LOW, HIGH, SHAPE = 1.3 * INCH, 2.4 * INCH, 0.62  # of its height, and as a share of its width
SQUARE = 2.6 * INCH  # widest panel of square cells
PAGE = 1000.0  # px; about the width for which plots choose their heights


@dataclass(frozen=True)
class Room:
    """Room around and between panels, in pixels.

    Attributes:
        left: Beside the first column.
        right: Beside the last one.
        between: Beside the other columns.
        over: Over the first row and its titles.
        under: Under the last one.
        shelf: Under the other rows.
    """

    left: float
    right: float
    between: float
    over: float
    under: float
    shelf: float


@dataclass(frozen=True)
class Grid:
    """Panels in rows and columns.

    Attributes:
        spots: The panel at each row and column.
        wide: Width of a panel in pixels.
        rows: Height of each row.
        lifts: Room over each row for its titles.
        spare: Width that square panels leave free.
    """

    spots: dict[tuple[int, int], Panel]
    wide: float
    rows: list[float]
    lifts: list[float]
    spare: float


def arrange(figure: dict[str, Any], em: float, letter: float) -> None:
    """Set domains, margins, ticks and height of a figure whose width is in its layout."""
    layout = figure["layout"]
    over = furniture.legend(figure, em, letter)
    right, on_top = furniture.bars(layout, em)
    furniture.words(layout, em)
    found = panels(figure)
    wide = axes.letters(figure["data"], found)
    room = _room(found, em, right=right, over=over + on_top, letters=wide)
    if furniture.several(layout):
        room = replace(room, between=room.between + right)
    if not found:
        _shrink(layout, room)
        return
    grid = _grid(found, layout["width"], room, em)
    lines = axes.lines(found, min(grid.rows), em)
    if lines > 1:
        wider = (lines - 1) * 1.2 * em
        many = len(axes.titles(found, "y")) > 1
        room = replace(room, left=room.left + wider, between=room.between + wider * many)
        grid = _grid(found, layout["width"], room, em)
    _place(layout, grid, room, em)
    furniture.stand(figure, found, _inside(grid, room), em)
    axes.finish(grid.spots, grid.wide, grid.rows, em)


def _room(found: list[Panel], em: float, *, right: float, over: float, letters: int) -> Room:
    """Find what the ticks and titles of the panels need.

    Args:
        found: The panels.
        em: Size of the type.
        right: What colour bars take at the right.
        over: What legend and colour bars take on top.
        letters: In the longest number on a vertical axis.
    """
    if found and all(panel.bare for panel in found):
        return Room(0.4 * em, right + 0.4 * em, 1.5 * em, over + 0.2 * em, 0.4 * em, 0.3 * em)
    names = axes.titles(found, "y")
    numbers = (0.9 + furniture.LETTER * letters) * em  # with the ticks themselves
    title = 1.9 * em if names else 0.3 * em
    apart = 0.9 * em if share(found) or hushed(found) else 0.4 * em + numbers
    ends = 0.5 if any(panel.lift for panel in found) else 1.3  # numbers at the ends stick out
    shelf = ends if axes.alike(found) else 1.8
    return Room(
        left=numbers + title,
        right=right or 0.8 * em,
        between=numbers + title + 0.4 * em if len(names) > 1 else apart,
        over=over + 0.5 * em,
        under=3.3 * em if not found or axes.titles(found, "x") else 1.7 * em,
        shelf=shelf * em,
    )


def _shrink(layout: dict[str, Any], room: Room) -> None:
    """Keep panels of no known arrangement where they are, in the page's proportions."""
    tall = layout.get("height", 420) * min(1.0, max(0.6, layout["width"] / PAGE))
    layout["height"] = round(tall)
    layout["margin"] = {"l": room.left, "r": room.right, "t": room.over, "b": room.under, "pad": 0}


def _grid(found: list[Panel], width: float, room: Room, em: float) -> Grid:
    """Choose columns that are wide enough, and more of them where the figure is too tall."""
    if not movable(found):
        return _filled({panel.spot: panel for panel in found}, width, room, em)
    natural = max(panel.spot[1] for panel in found) + 1
    least = NARROW_BARE if found[0].bare else NARROW_CELLS if found[0].cells else NARROW
    fitting = [n for n in range(1, len(found) + 1) if _wide(n, width, room) >= least] or [1]
    columns = max(n for n in fitting if n <= natural)
    grids = [
        _filled({divmod(rank, n): panel for rank, panel in enumerate(found)}, width, room, em)
        for n in fitting
        if n >= columns
    ]
    return next((grid for grid in grids if _tall(grid, room) <= TALLEST), grids[-1])


def _filled(spots: dict[tuple[int, int], Panel], width: float, room: Room, em: float) -> Grid:
    """Give the rows of a grid their heights."""
    count, columns = (max(spot[way] for spot in spots) + 1 for way in (0, 1))
    wide = _wide(columns, width, room)
    framed = any(panel.cells and not panel.bare for panel in spots.values())
    spare = max(0.0, wide - SQUARE) * columns if framed else 0.0
    wide -= spare / columns
    plain = min(HIGH, max(LOW, wide * SHAPE))
    rows = [[panel for spot, panel in spots.items() if spot[0] == row] for row in range(count)]
    return Grid(
        spots=spots,
        wide=wide,
        rows=[max(wide * p.cells if p.cells else plain for p in row) for row in rows],
        lifts=[em * max(p.lift for p in row) for row in rows],
        spare=spare,
    )


def _wide(columns: int, width: float, room: Room) -> float:
    return (width - room.left - room.right - (columns - 1) * room.between) / columns


def _inside(grid: Grid, room: Room) -> float:
    """Height from the top of the first panel to the bottom of the last."""
    return sum(grid.rows) + sum(grid.lifts[1:]) + room.shelf * (len(grid.rows) - 1)


def _tall(grid: Grid, room: Room) -> float:
    return room.over + grid.lifts[0] + _inside(grid, room) + room.under


def _place(layout: dict[str, Any], grid: Grid, room: Room, em: float) -> None:
    """Give every panel its part of the figure, and the figure its height and margins."""
    layout["height"] = round(_tall(grid, room))
    layout["margin"] = {
        "l": room.left + grid.spare / 2,
        "r": room.right + grid.spare / 2,
        "t": room.over + grid.lifts[0],
        "b": room.under,
        "pad": 0,
    }
    across = layout["width"] - room.left - room.right - grid.spare
    down = _inside(grid, room)
    for (row, col), panel in grid.spots.items():
        left = col * (grid.wide + room.between)
        top = sum(grid.rows[:row]) + sum(grid.lifts[1 : row + 1]) + room.shelf * row
        panel.x["domain"] = [left / across, min(1.0, (left + grid.wide) / across)]
        panel.y["domain"] = [max(0.0, 1 - (top + grid.rows[row]) / down), 1 - top / down]
        if panel.title:
            panel.title["x"] = sum(panel.x["domain"]) / 2
            panel.title["y"] = panel.y["domain"][1]
            fit = grid.wide / (furniture.LETTER * len(furniture.plain(panel.title["text"])))
            panel.title["font"]["size"] = max(0.7 * em, min(em, fit))
