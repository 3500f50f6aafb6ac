"""The loss of a training run, as it was logged and smoothed, with what evaluations gave."""

import plotly.graph_objects as go

from attnprobe.frames import known
from attnprobe.plots import PALETTE, Plot
from attnprobe.plots import _training as training
from attnprobe.traininglog import TrainingRun

COLOUR, OTHER = PALETTE[0], PALETTE[1]
HEIGHT, TOP = 380, 48  # pixels


def _draw(run: TrainingRun) -> go.Figure:
    logged = {"mode": "lines", "line": {"color": COLOUR, "width": 1}, "opacity": 0.35}
    smooth = {"mode": "lines", "line": {"color": COLOUR, "width": 2.25}}
    if len(run.scalars) == 1:  # a line of one point is not seen
        logged["mode"] = "markers"
    traces = [
        training.line(run.scalars, "loss", "loss, as logged", **logged),
        training.line(run.scalars, "loss_smooth", "loss, running mean", **smooth),
    ]
    if "loss" in run.evals and len(known(run.evals, "loss")):
        marks = {"mode": "lines+markers", "marker": {"color": OTHER, "size": 7}}
        joined = {"color": OTHER, "width": 1.25, "dash": "dot"}
        traces.append(training.line(run.evals, "loss", "loss of evaluation", line=joined, **marks))
    figure = go.Figure(traces)
    figure.update_yaxes(title={"text": "Loss"})
    training.finish(figure, run, height=HEIGHT, margin={"t": TOP})
    return figure


PLOT = Plot(
    "training_loss",
    "Loss",
    ("scalars",),
    _draw,
    caption="The pale line is the loss as it was logged, the strong line its running mean "
    "over 4 % of the values, as many before as after. Marks are the loss of evaluations "
    "where there were any.",
    of="training",
)
