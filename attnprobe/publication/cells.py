"""Heat maps as filled outlines, so that every cell stays a vector with a sharp edge.

All cells of one colour make one outline: Chrome draws thousands of bars or squares of their
own a hundred times slower.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import ImageColor

LEVELS = 128  # colours of a scale; neighbours cannot be told apart
DEFAULT = "Viridis"
OVERLAP = 0.5  # px; viewers show the page through edges that only touch

Ends = tuple[float, float]


def vector(figure: go.Figure) -> go.Figure:
    """Return a copy of a figure whose evenly spaced heat maps are outlines, colour by colour."""
    copy = go.Figure(figure)
    traces: list[Any] = list(copy.data)
    for trace in traces:
        if isinstance(trace, go.Heatmap) and not trace.coloraxis:
            _name_scale(copy, trace)
    maps = {id(trace): ends for trace in traces if (ends := extent(trace))}
    limits = _settle(copy, [trace for trace in traces if id(trace) in maps])
    drawn, shapes = [], list(copy.layout.shapes)
    for trace in traces:
        if id(trace) in maps:
            _span(copy, trace, maps[id(trace)])
            shapes += _outlines(copy, trace, maps[id(trace)], limits[trace.coloraxis])
        drawn.append(_key(trace) if id(trace) in maps else trace)
    return go.Figure(data=drawn, layout=copy.layout.update(shapes=shapes))


def extent(trace: Any) -> tuple[Ends, Ends] | None:
    """Return where the cells of a heat map begin and end, along x and along y.

    Nothing is returned for other traces, for cells that are not numbered, and for cells of
    different sizes.

    >>> extent(go.Heatmap(z=[[1, 2, 3], [4, 5, 6]]))
    ((-0.5, 2.5), (-0.5, 1.5))
    """
    values: Any = trace.z if isinstance(trace, go.Heatmap) else None
    if np.ndim(values) != 2 or not np.size(values):
        return None
    rows, columns = np.shape(values)
    across, down = _ends(trace.x, columns), _ends(trace.y, rows)
    return (across, down) if across and down else None


def _ends(places: Any, count: int) -> Ends | None:
    where = np.arange(count) if places is None else np.asarray(places)
    if where.dtype.kind not in "iuf" or len(where) != count:
        return None
    steps = np.diff(where)
    if len(steps) and not (steps[0] > 0 and np.allclose(steps, steps[0])):
        return None
    half = (steps[0] if len(steps) else 1) / 2
    return float(where[0] - half), float(where[-1] + half)


def _name_scale(figure: go.Figure, trace: Any) -> None:
    """Move a heat map's own colour scale into the layout, where shared ones are."""
    taken = [name for name in figure.to_dict()["layout"] if name.startswith("coloraxis")]
    trace.coloraxis = f"coloraxis{len(taken) + 2}"
    own = {
        "colorscale": trace.colorscale,
        "reversescale": trace.reversescale,
        "cmin": trace.zmin,
        "cmax": trace.zmax,
        "cmid": trace.zmid,
        "showscale": trace.showscale is not False,
        "colorbar": trace.colorbar.to_plotly_json(),
    }
    figure.update_layout({trace.coloraxis: own})


def _settle(figure: go.Figure, maps: list[Any]) -> dict[str, Ends]:
    """Fix what colour scales leave to the values, and return where each begins and ends."""
    values = defaultdict(list)
    for trace in maps:
        values[trace.coloraxis].append(np.array(trace.z, dtype=float).ravel())
    for name, parts in values.items():
        scale, numbers = figure.layout[name], np.concatenate(parts)
        numbers = numbers[np.isfinite(numbers)] if np.isfinite(numbers).any() else np.zeros(1)
        low, high = float(numbers.min()), float(numbers.max())
        if scale.cmid is not None:
            reach = max(abs(low - scale.cmid), abs(high - scale.cmid))
            low, high = scale.cmid - reach, scale.cmid + reach
        scale.colorscale = scale.colorscale or DEFAULT
        scale.cmin = low if scale.cmin is None else scale.cmin
        scale.cmax = high if scale.cmax is None else scale.cmax
    return {name: (figure.layout[name].cmin, figure.layout[name].cmax) for name in values}


def _outlines(
    figure: go.Figure, trace: Any, ends: tuple[Ends, Ends], limits: Ends
) -> list[dict[str, Any]]:
    """Return one shape for every colour of a heat map."""
    (left, right), (bottom, top) = ends
    values = np.array(trace.z, dtype=float)
    rows, columns = values.shape
    wide, high = (right - left) / columns, (top - bottom) / rows
    low, reach = limits[0], (limits[1] - limits[0]) or 1.0
    level = np.clip((values - low) / reach, 0, 1) * (LEVELS - 1)
    paths = defaultdict(list)
    for row, column in np.argwhere(np.isfinite(values)):
        x, y = left + column * wide, bottom + row * high
        paths[round(float(level[row, column]))].append(
            f"M{x:.6g},{y:.6g}H{x + wide:.6g}V{y + high:.6g}H{x:.6g}Z"
        )
    colours = _colours(figure.layout[trace.coloraxis])
    where = {"type": "path", "xref": trace.xaxis or "x", "yref": trace.yaxis or "y"}
    return [
        {
            **where,
            "path": "".join(parts),
            "fillcolor": colours[step],
            "line": {"color": colours[step], "width": OVERLAP},
            "layer": "between",
        }
        for step, parts in sorted(paths.items())
    ]


def _colours(scale: Any) -> list[str]:
    places, names = zip(*scale.colorscale, strict=True)
    known = np.array([ImageColor.getrgb(name)[:3] for name in names], dtype=float)
    steps = np.linspace(0, 1, LEVELS)[:: -1 if scale.reversescale else 1]
    channels = [np.interp(steps, places, channel) for channel in known.T]
    return [
        f"rgb({red:.0f},{green:.0f},{blue:.0f})" for red, green, blue in zip(*channels, strict=True)
    ]


def _key(trace: Any) -> go.Scatter:
    """Return a mark without a place, which keeps the panel and its colour bar."""
    marker = {"color": [0], "coloraxis": trace.coloraxis}
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker=marker,
        xaxis=trace.xaxis,
        yaxis=trace.yaxis,
        showlegend=False,
    )


def _span(figure: go.Figure, trace: Any, ends: tuple[Ends, Ends]) -> None:
    """Keep the axes to the cells, as the heat map did."""
    for letter, (low, high) in zip("xy", ends, strict=True):
        axis = figure.layout[f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"]
        if axis.range is None:
            turned = axis.autorange == "reversed"
            axis.update(range=(high, low) if turned else (low, high), autorange=False)
