"""Figures of docs/benchmarks.md, drawn by plotly and kaleido as SVG."""

from collections.abc import Callable

import plotly.graph_objects as go
from _rows import Row

INK, GRID, PAPER = "#222222", "#dddddd", "#ffffff"
COLOURS = ("#8a8a8a", "#0b6e99", "#d9730d", "#6940a5", "#4d6461")
BARE, PER_IMAGE, WHOLE, BEYOND = (
    "bare forward",
    "per image",
    "whole run",
    "peak memory beyond the loaded model",
)
TOGETHER = ("capture alone", "all but cka", "all five metrics")


def overhead(rows: list[Row]) -> go.Figure:
    """Ratio per image to the bare pass, a group of bars a model."""
    figure = go.Figure()
    for colour, provider in zip(COLOURS, TOGETHER, strict=False):
        bars(figure, [r for r in rows if r["provider"] == provider], PER_IMAGE, provider, colour)
    figure.update_yaxes(title="time per image / bare forward", rangemode="tozero")
    return figure


def peers(rows: list[Row]) -> go.Figure:
    """Ratio of whole runs to the bare pass, a group of bars a model."""
    figure = go.Figure()
    names = dict.fromkeys(r["provider"] for r in rows if r["quantity"] == WHOLE)
    for colour, provider in zip(COLOURS, names, strict=False):
        bars(figure, [r for r in rows if r["provider"] == provider], WHOLE, provider, colour)
    figure.update_yaxes(title="time of the run / bare forward", rangemode="tozero")
    return figure


def memory(rows: list[Row]) -> go.Figure:
    """Peak memory beyond the model against tokens, a line a way."""
    figure = go.Figure()
    for colour, provider in zip(COLOURS, dict.fromkeys(r["provider"] for r in rows), strict=False):
        mine = [r for r in rows if r["provider"] == provider and r["quantity"] == BEYOND]
        kept = sorted((tokens(r), float(r["value"])) for r in mine if r["value"] != "")
        x, y = zip(*kept, strict=True) if kept else ((), ())
        style = {"line": {"color": colour}, "mode": "lines+markers", "name": provider}
        figure.add_scatter(x=x, y=y, **style)
    figure.update_xaxes(title="tokens", type="log", tickvals=sorted({tokens(r) for r in rows}))
    ticks = {"tickvals": [10, 100, 1000, 10000], "ticktext": ["10", "100", "1,000", "10,000"]}
    figure.update_yaxes(title="MiB beyond the model", type="log", **ticks)
    return figure


FIGURES: dict[str, Callable[[list[Row]], go.Figure]] = {
    "overhead": overhead,
    "peers": peers,
    "memory": memory,
}


def tokens(row: Row) -> int:
    """Return the tokens that a memory case tells.

    >>> tokens({"case": "ViT-B/16 at 224 px, 197 tokens"})
    197
    """
    return int(row["case"].split(",")[1].split()[0])


def bars(figure: go.Figure, rows: list[Row], quantity: str, name: str, colour: str) -> None:
    """Add the bars of one provider with their quartiles."""
    kept = [row for row in rows if row["quantity"] == quantity and row["ratio"] != ""]
    ratio, low, high = ([float(r[k]) for r in kept] for k in ("ratio", "q1", "q3"))
    spread = {
        "type": "data",
        "array": [h - m for m, h in zip(ratio, high, strict=True)],
        "arrayminus": [m - lo for m, lo in zip(ratio, low, strict=True)],
        "thickness": 1,
    }
    labels = [row["case"] for row in kept]
    figure.add_bar(x=labels, y=ratio, name=name, marker={"color": colour}, error_y=spread)


def drawn(rows: list[Row]) -> dict[str, bytes]:
    """Return the figures as SVG, of the first device and precision that each section has."""
    found = {}
    for name, figure_of in FIGURES.items():
        mine = [row for row in rows if row["section"] == name]
        if not mine:
            continue
        first = [r for r in mine if all(r[k] == mine[0][k] for k in ("device", "precision"))]
        figure = figure_of(first)
        figure.update_layout(
            template="none",
            width=760,
            height=380,
            font={"family": "sans-serif", "size": 13, "color": INK},
            paper_bgcolor=PAPER,
            plot_bgcolor=PAPER,
            margin={"l": 60, "r": 10, "t": 10, "b": 60},
            legend={"orientation": "h", "y": 1.12, "x": 0},
        )
        figure.update_yaxes(gridcolor=GRID)
        found[name] = figure.to_image(format="svg")
    return found
