"""The page of a training run: what it learned, how attention emerged, what it reconstructs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from attnprobe import plugins, tracking
from attnprobe.errors import ResultError
from attnprobe.plots import Plot, fills
from attnprobe.plots._scores import score_name
from attnprobe.report import sections as probes
from attnprobe.report import tables, trackpage
from attnprobe.report.albums import album
from attnprobe.report.citations import bibtex
from attnprobe.report.figures import PLOTS, Figure, drawn
from attnprobe.report.legible import legible, legible_frame, legible_result
from attnprobe.report.methods import paragraphs
from attnprobe.report.page import assemble
from attnprobe.report.sections import Section
from attnprobe.report.tables import Table
from attnprobe.report.trainsummary import card, facts, sentences, skipped
from attnprobe.results import Result
from attnprobe.tracking import Steps, Track
from attnprobe.traininglog import TrainingRun
from attnprobe.traininglog.pictures import spread

MOST_ROWS = 1000  # logged values on a page
MOST_PROBES = 40
WHOLE = 1e-6  # epochs that are this near to whole numbers count as such
HEADINGS = {
    "loss_smooth": "Running mean",
    "lr": "Learning rate",
    "images_per_s": "Images/s",
    "grad_norm": "Gradient norm",
}
MOVIE = ("How attention emerged", "Every probe of the training in turn: play, step, or drag.")


@dataclass(frozen=True)
class Emergence:
    """What the probes of a run show.

    Attributes:
        results: Those that were read, ascending by step.
        track: All of them on one axis, where there are two or more that belong together.
        note: Why there is no track, where one was to be expected.
    """

    results: Sequence[Result]
    track: Track | None
    note: str = ""


def render(run: TrainingRun) -> str:
    """Return the page about a training run as text.

    Raises:
        ResultError: A result of its probe is damaged.
    """
    run = legible_run(run)
    emergence = emerged(run)
    last = [legible_result(result) for result in emergence.results[-1:]]
    return assemble(
        "train.html.jinja",
        [*_progress(run), *_evaluation(run), *_emergence(emergence, last)],
        own=("pictures.js",),
        results=last,
        title=run.name,
        lede=sentences(run, emergence.track, last),
        notes=[legible(emergence.note)] if emergence.note else [],
        facts=facts(run),
        word=emergence.track.word if emergence.track else "step",
        album=album(run.pictures),
        card=card(run),
        skipped=skipped(run, last),
        command=run.manifest.get("command", ""),
        config=run.config_text,
        geometry=tables.geometry(last),
        methods=paragraphs(last[0]) if last else [],
        tested=trackpage.TESTED if emergence.track else "",
        definitions=list(tables.definitions(last)),
        bibtex=bibtex({run.manifest["objective"], *(n for one in last for n in one.tables)}),
    )


def emerged(run: TrainingRun) -> Emergence:
    """Read the probes of a run, some that are evenly spread where there are many."""
    picked = spread(list(range(len(run.results))), MOST_PROBES)
    results = [run.results[at] for at in picked]
    if len(results) < 2:
        return Emergence(results, None)
    try:
        track = tracking.track(results, _steps(results), name=run.name)
    except ResultError as error:
        return Emergence(results, None, f"Only the last probe is shown: {error.cause}.")
    return Emergence(results, trackpage.legible_track(track))


def legible_run(run: TrainingRun) -> TrainingRun:
    """A run whose texts are all legible, with as many logged values as a page can hold."""
    rows = spread(list(range(len(run.scalars))), MOST_ROWS)
    lines = [legible(line) for line in run.config_text.splitlines()]
    return replace(
        run,
        manifest=legible(run.manifest),
        config=legible(run.config),
        config_text="\n".join(lines),
        scalars=legible_frame(run.scalars.iloc[rows].reset_index(drop=True)),
        evals=legible_frame(run.evals),
    )


def _steps(results: Sequence[Result]) -> Steps:
    """Return epochs where every probe was made at the end of one, else updates."""
    epochs = [result.model.get("epoch", 0.5) for result in results]
    whole = [round(epoch) for epoch in epochs]
    near = all(abs(a - b) < WHOLE for a, b in zip(epochs, whole, strict=True))
    if near and len(set(whole)) == len(whole):
        return Steps(tuple(map(float, whole)), "epoch", "the epochs that had been trained")
    steps = [float(result.model.get("step", at)) for at, result in enumerate(results)]
    return Steps(tuple(steps), "step", "the updates that had been done")


def _progress(run: TrainingRun) -> list[Section]:
    """Return the section about loss and rates, if anything was logged."""
    title = "Logged values" if len(run.scalars) < MOST_ROWS else "Logged values, evenly chosen"
    shown = [_table("logged", title, run.scalars)] if len(run.scalars) else []
    figures = _figures(run, "training_loss", "training_rate")
    lead = "What the training was told to lower, and how fast it went."
    return [_section("progress", "Loss", lead, figures, hidden=shown)] if figures else []


def _evaluation(run: TrainingRun) -> list[Section]:
    if run.evals.empty:
        return []
    lead = "What the representation is good for, measured with the weights frozen."
    shown = _table("evaluations", "By epoch", run.evals.drop(columns="seconds", errors="ignore"))
    figures = _figures(run, "training_scores")
    return [_section("evaluation", "Evaluation", lead, figures, shown=shown)]


def _emergence(emergence: Emergence, last: list[Result]) -> list[Section]:
    """Return the sections of the track, or of the only probe."""
    if emergence.track is None:
        return probes.sections(last) if last else []
    parts = trackpage.sections(emergence.track)
    return [
        replace(part, title=MOVIE[0], lead=MOVIE[1]) if part.key == "movie" else part
        for part in parts
    ]


def _section(
    key: str,
    title: str,
    lead: str,
    figures: list[Figure],
    *,
    shown: Table | None = None,
    hidden: Sequence[Table] = (),
) -> Section:
    return Section(key, title, lead, [], figures, shown, list(hidden))


def _figures(run: TrainingRun, *names: str) -> list[Figure]:
    plots: list[Plot] = [plugins.load(PLOTS, name, "PLOT") for name in names]
    held = run.tables
    return [drawn(plot, run) for plot in plots if fills(plot, held)]


def _table(key: str, title: str, frame: pd.DataFrame) -> Table:
    named = {str(name): score_name(str(name)) for name in frame if "top" in str(name)}
    headings: dict[str, Any] = {**named, **HEADINGS}
    return tables.built(key, title, frame, headings)
