"""What figures of a training run share: their axis, and how a logged value is told."""

from typing import Any

import plotly.graph_objects as go

from attnprobe.frames import rows
from attnprobe.plots import _style as style
from attnprobe.tracking.naming import step_name
from attnprobe.traininglog import TrainingRun

ROOM = 0.02  # at the ends of the axis, as a part of it
SHORT = 6  # significant digits


def line(frame: Any, column: str, name: str, **looks: Any) -> go.Scatter:
    """Return a trace of one column against the epoch, each value told with its step.

    Args:
        frame: Rows with step and epoch.
        column: The column to draw; its missing values are left out.
        name: Entry in the legend.
        **looks: Of the trace.
    """
    held = frame.loc[frame[column].notna()]
    told = zip(rows(held), held[column], strict=True)
    return go.Scatter(
        name=name,
        x=[_short(value) for value in held["epoch"]],
        y=[_short(value) for value in held[column]],
        hoverinfo="text",
        hovertext=[
            f"epoch {row.epoch:.4g}, step {step_name(row.step)}<br>{name} {value:.4g}"
            for row, value in told
        ],
        **looks,
    )


def finish(figure: go.Figure, run: TrainingRun, **layout: Any) -> None:
    """Give every panel the same axis, of the epochs that were trained so far."""
    done = run.manifest["step"] / run.manifest["steps_per_epoch"]
    logged = [epoch for frame in (run.scalars, run.evals) for epoch in frame["epoch"].tolist()[-1:]]
    last = max([done, *logged]) or 1.0
    figure.update_xaxes(title={"text": "Epoch"}, range=[-ROOM * last, (1 + ROOM) * last])
    figure.update_layout(template=style.TEMPLATE, **layout)


def _short(value: float) -> float:
    return float(f"{value:.{SHORT}g}")
