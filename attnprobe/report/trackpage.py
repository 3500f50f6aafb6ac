"""The page of a track: a movie, what changed, every layer at every checkpoint, the tables."""

from dataclasses import replace

import pandas as pd

from attnprobe import plugins
from attnprobe.plots import Plot, fills
from attnprobe.report import tables
from attnprobe.report.figures import PLOTS, Figure, drawn
from attnprobe.report.legible import legible, legible_frame, legible_result, unmarked
from attnprobe.report.page import about, assemble
from attnprobe.report.sections import LEADS, Section
from attnprobe.report.tables import Table
from attnprobe.report.tracksummary import provenance, sentences, skipped
from attnprobe.tracking import Track
from attnprobe.tracking.naming import metrics, quantity, step_name
from attnprobe.tracking.tables import CHANGE, SETTLED

PAIRED = (
    f"{CHANGE}; 95 % BCa bootstrap interval over images; p of the paired permutation test on the "
    "same differences; q controls the false discovery rate over the layers of one metric "
    "(Benjamini and Hochberg 1995)"
)
TESTED = (
    "The change from the first to the last checkpoint was tested in each layer; neighbouring "
    "layers and checkpoints were not, so their intervals are not to be read as comparisons."
)
CONVERGED = (
    "How alike a layer's output is to what it is in the last checkpoint, up to rotation and "
    "scale: layers that reach 1 early have found their final representation."
)
DIGITS = 7  # of values by head, as many as were measured


def render(track: Track) -> str:
    """Return the page about a track as text."""
    track = legible_track(track)
    last = track.results[-1]
    facts = [
        ("Checkpoints", len(track.steps)),
        (track.word.capitalize(), f"{step_name(track.steps[0])} to {step_name(track.steps[-1])}"),
        ("Layers", len(last.layers)),
        ("Images", last.provenance.images),
        ("Parameters", last.model.get("parameters", "")),
    ]
    return assemble(
        "track.html.jinja",
        sections(track),
        results=[last],
        title=track.name,
        lede=sentences(track),
        facts=[(term, value) for term, value in facts if value],
        word=track.word,
        source=track.source,
        checkpoints=_table(track, "checkpoints", "Checkpoints", provenance(track)),
        skipped=skipped(track),
        tested=TESTED,
        **about([last]),
    )


def sections(track: Track) -> list[Section]:
    """Return the parts of the page that the track can fill."""
    words = {
        "movie": (f"{track.word.capitalize()} by {track.word}", "Play, step through, or drag."),
        "changes": (
            "From first to last",
            "What training changed, layer by layer; the tables are below, one a quantity.",
        ),
        "overview": ("All layers, all checkpoints", "Where in the network, and when."),
    }
    told = {"changes": [("change", PAIRED), ("settled", SETTLED)]}
    plots = {"movie": "track_movie", "changes": "track_changes", "overview": "track_map"}
    parts = [
        Section(key, *words[key], told.get(key, []), _figures(track, plot), None, [])
        for key, plot in plots.items()
    ]
    parts += [_metric(track, metric) for metric in metrics(track)]
    return [part for part in parts if part.figures or part.shown]


def _metric(track: Track, metric: str) -> Section:
    """Return the section of one metric: its small multiples and its tables."""
    named = {name: _only(table, metric) for name, table in track.tables.items()}
    means, heads = named["track"], named["track_heads"]
    title, lead = LEADS.get(metric, (quantity(metric), ""))
    values = heads["value"].map(lambda value: float(f"{value:.{DIGITS}g}"))
    parts = [
        _table(track, f"{metric}_by_layer", f"By {track.word} and layer", means),
        _table(track, f"{metric}_by_head", f"By {track.word} and head", heads.assign(value=values)),
    ]
    return Section(
        key=metric,
        title=title,
        lead=lead or (CONVERGED if metric == "cka_last" else ""),
        definitions=[(metric, str(text)) for text in means["definition"].dropna().unique()],
        figures=[
            replace(figure, plot=replace(figure.plot, name=f"{figure.plot.name}_{metric}"))
            for figure in _figures(replace(track, tables=named), "track_layers")
        ],
        shown=_changes(track, metric, named),
        hidden=[part for part in parts if part],
    )


def _changes(track: Track, metric: str, named: dict[str, pd.DataFrame]) -> Table | None:
    """Return the changes of one metric, with the steps at which its layers had settled."""
    settled = named["settled"].rename(columns={"step": "settled"})[["layer", "settled"]]
    changes = named["changes"].merge(settled, on="layer", how="left")
    title = "Change from the first to the last checkpoint"
    return _table(track, f"{metric}_changes", title, changes)


def _figures(track: Track, name: str) -> list[Figure]:
    plot: Plot = plugins.load(PLOTS, name, "PLOT")
    return [drawn(plot, track)] if fills(plot, track.tables) else []


def _only(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table.loc[table["metric"] == metric]


def _table(track: Track, key: str, title: str, frame: pd.DataFrame) -> Table | None:
    frame = frame.rename(columns={"step": track.word})
    return tables.table(key, title, [track.results[-1]], [frame])


def legible_track(track: Track) -> Track:
    """A track whose names and words are all legible; its numbers are the same."""
    return replace(
        track,
        name=legible(track.name),
        word=unmarked(legible(track.word)),
        results=tuple(legible_result(result) for result in track.results),
        tables={name: legible_frame(table) for name, table in track.tables.items()},
    )
