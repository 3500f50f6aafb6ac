"""What evaluations of a training run gave: kNN, linear probe, the classifier itself."""

import plotly.graph_objects as go

from attnprobe.plots import MOST, PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.plots import _training as training
from attnprobe.plots._scores import NAMES, score_name
from attnprobe.traininglog import TrainingRun

HEIGHT, TOP = 360, 48  # pixels


def _draw(run: TrainingRun) -> go.Figure:
    table = run.tables["scores"]
    known = [name for name in NAMES if name in set(table["quantity"])]
    others = sorted(set(table["quantity"]) - set(known))
    figure = go.Figure()
    for at, name in enumerate([*known, *others][:MOST]):
        part = table.loc[table["quantity"] == name]
        looks = {
            "line": {"color": PALETTE[at], "width": 2, "dash": style.DASHES[at]},
            "marker": {"color": PALETTE[at], "size": 7, "symbol": style.SYMBOLS[at]},
        }
        told = style.label(score_name(name), 40)
        figure.add_trace(training.line(part, "value", told, mode="lines+markers", **looks))
    part_of_one = bool(table["value"].between(0, 1).all())
    figure.update_yaxes(title={"text": "Accuracy"}, tickformat=".3~%" if part_of_one else None)
    training.finish(figure, run, height=HEIGHT, margin={"t": TOP}, showlegend=True)
    return figure


PLOT = Plot(
    "training_scores",
    "Accuracy of evaluations",
    ("scores",),
    _draw,
    caption="Each mark is one evaluation of the weights as they were after that epoch.",
    of="training",
)
