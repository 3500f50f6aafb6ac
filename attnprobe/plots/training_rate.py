"""Learning rate, throughput and gradient norm of a training run, one panel each."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.plots import _training as training
from attnprobe.traininglog import TrainingRun

TITLES = {
    "lr": "Learning rate",
    "images_per_s": "Images per second",
    "grad_norm": "Gradient norm",
}
PANEL, TOP, BOTTOM = 190, 20, 52  # pixels
COLOUR = PALETTE[0]


def _draw(run: TrainingRun) -> go.Figure:
    table = run.tables["rates"]
    shown = [name for name in TITLES if name in set(table["quantity"])]
    figure = make_subplots(rows=1, cols=len(shown), horizontal_spacing=0.26 / len(shown))
    for col, name in enumerate(shown, start=1):
        part = table.loc[table["quantity"] == name]
        looks: dict[str, Any] = {"mode": "lines", "line": {"color": COLOUR, "width": 1.75}}
        if len(part) == 1:
            looks["mode"] = "markers"
        trace = training.line(part, "value", TITLES[name].lower(), showlegend=False, **looks)
        figure.add_trace(trace, row=1, col=col)
        title = {"text": style.label(TITLES[name])}
        figure.update_yaxes(title=title, rangemode="tozero", row=1, col=col)
    figure.update_yaxes(exponentformat="e", nticks=5)
    training.finish(figure, run, height=TOP + PANEL + BOTTOM, margin={"t": TOP})
    figure.update_layout(meta={"narrowest": 230 * len(shown)})
    return figure


PLOT = Plot(
    "training_rate",
    "Learning rate and throughput",
    ("rates",),
    _draw,
    caption="Throughput counts the images of all processes between two logged values, with what "
    "was done between them: probes, evaluations and saves show as dips.",
    of="training",
)
