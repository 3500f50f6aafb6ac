"""Figures for the page: which plots apply, and their data as JSON that is safe in HTML."""

import json
from dataclasses import dataclass
from typing import Any

from attnprobe import plugins
from attnprobe.plots import Plot, drawable
from attnprobe.results import Result

PLOTS = "attnprobe.plots"
CONTROLS = ("sliders", "updatemenus")


@dataclass(frozen=True)
class Figure:
    """A drawn plot.

    Attributes:
        plot: What it shows.
        height: Height in CSS pixels, kept free before the figure is drawn.
        narrowest: Least width at which it can be read; narrower screens scroll the figure.
        widest: Greatest width that helps it, if there is one.
        data: Traces, layout and frames as plain JSON values.
    """

    plot: Plot
    height: int
    narrowest: int
    widest: int | None
    data: dict[str, Any]


def figures(results: list[Result]) -> list[Figure]:
    """Every plot in the plots folder that these results can fill."""
    plots = [plugins.load(PLOTS, name, "PLOT") for name in plugins.names(PLOTS)]
    return [drawn(plot, held) for plot in plots if (held := drawable(plot, results))]


def drawn(plot: Plot, subject: Any) -> Figure:
    """Draw a plot of its subject; a page has controls of its own for frames."""
    figure = plot.draw(subject)
    data = json.loads(figure.to_json() or "{}")
    layout = {key: part for key, part in data["layout"].items() if key not in CONTROLS}
    meta = layout.get("meta", {})
    axes = [axis for name, axis in layout.items() if name.startswith("xaxis")]
    frames = {"frames": data["frames"]} if data.get("frames") else {}
    columns = {tuple(axis.get("domain", (0, 1))) for axis in axes}
    return Figure(
        plot=plot,
        height=layout.get("height", 420),
        narrowest=meta.get("narrowest", 320 if len(columns) == 1 else 300 * len(columns)),
        widest=meta.get("widest"),
        data={"data": data["data"], "layout": layout} | frames,
    )


def embed(value: Any) -> str:
    """JSON that can stand inside a script element, whatever text is in it.

    >>> "<" in embed("</script>")
    False
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
