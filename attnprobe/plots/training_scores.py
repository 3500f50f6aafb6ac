"""What evaluations of a training run gave: kNN, linear probe, the classifier itself."""

import plotly.graph_objects as go

from attnprobe.plots import MOST, PALETTE, Plot
from attnprobe.plots import _style as style
from attnprobe.plots import _training as training
from attnprobe.traininglog import TrainingRun

HEIGHT, TOP = 360, 48  # pixels
NAMES = {"knn_top1": "kNN, top-1", "linear_top1": "linear probe, top-1", "top1": "top-1"}
_BROADER = {"knn_top5": "kNN, top-5", "linear_top5": "linear probe, top-5", "top5": "top-5"}


def score_name(name: str) -> str:
    """Return the name of a score for readers.

    >>> score_name("knn_top1"), score_name("ema_top5")
    ('kNN, top-1', 'ema top5')
    """
    return {**NAMES, **_BROADER}.get(name, name.replace("_", " "))


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
