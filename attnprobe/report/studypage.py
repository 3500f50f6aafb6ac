"""The page of a reproduction study: what the paper says against what was measured, then all of it.

A study that is under way has the same page; what is missing is named, and judged not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from attnprobe import plugins
from attnprobe.frames import rows
from attnprobe.plots import Plot, fills
from attnprobe.report import tables
from attnprobe.report.citations import bibtex
from attnprobe.report.figures import PLOTS, Figure, drawn
from attnprobe.report.legible import legible, legible_frame, legible_result
from attnprobe.report.methods import paragraphs
from attnprobe.report.page import assemble
from attnprobe.report.sections import Section, sections
from attnprobe.report.studysummary import MARKS, facts, notes, sentences
from attnprobe.report.tables import Table
from attnprobe.report.trainsummary import duration
from attnprobe.results import Result
from attnprobe.study import Summary, judging, summarise
from attnprobe.study.folder import Run, Study
from attnprobe.study.settings import METHODS, SCORES

TITLE = "The dark secrets of masked image modelling, reproduced"
HEADINGS = {
    "score": "Accuracy",
    "value": "Mean of seeds",
    "by_seed": "Each seed",
    "images": "Test images",
    "dropped": "Blocks dropped",
    "change": "Change",
    "change_low": "Change, low",
    "change_high": "Change, high",
    "says": "The paper says",
    "measured": "We measured",
    "verdict": "Holds?",
    "rule": "It holds where",
}
PERCENT = ("value", "low", "high", "change", "change_low", "change_high")
FIRST = ["layer_means", "distance", "entropy", "head_kl", "cka"]  # the paper's figures, in order


@dataclass(frozen=True)
class Row:
    """One statement as the page shows it.

    Attributes:
        says: What the paper says.
        place: Where.
        measured: The numbers.
        verdict: Whether it holds.
        mark: Class of its mark: yes, no or open.
        rule: When it holds.
    """

    says: str
    place: str
    measured: str
    verdict: str
    mark: str
    rule: str


def render(subject: Study | Summary) -> str:
    """Return the page about a study as text.

    Raises:
        ResultError: Results of it cannot stand side by side.
    """
    summary = _legible(subject if isinstance(subject, Summary) else summarise(subject))
    results = summary.study.first()
    parts = [*_attention(results), *_own(summary)]
    findings = summary.tables["findings"]
    listed = tables.built("findings", "All statements with their numbers", findings, HEADINGS)
    absent = summary.tables["missing"]
    return assemble(
        "study.html.jinja",
        parts,
        later=[
            listed,
            *([tables.built("missing", "Steps to come", absent)] if len(absent) else []),
        ],
        results=results,
        title=TITLE,
        lede=sentences(summary),
        notes=notes(summary),
        facts=facts(summary),
        topics=_topics(findings),
        rule=judging.RULE,
        findings=listed,
        missing=_missing(absent),
        recipes=_recipes(summary),
        timings=_timings(summary.tables["timings"]),
        versions=list(summary.tables["versions"].itertuples(index=False, name=None)),
        methods=paragraphs(results[0]) if results else [],
        definitions=list(tables.definitions(results)),
        bibtex=bibtex({*summary.study.methods, *(name for one in results for name in one.tables)}),
    )


def _legible(summary: Summary) -> Summary:
    """A summary whose texts are all legible; its numbers are the same."""
    study = summary.study
    runs = tuple(_legible_run(run) for run in study.runs)
    legibly = replace(study, settings=legible(study.settings), runs=runs)
    frames = {name: legible_frame(frame) for name, frame in summary.tables.items()}
    return Summary(legibly, frames)


def _legible_run(run: Run) -> Run:
    result = legible_result(run.result) if run.result is not None else None
    return replace(run, result=result, trouble=tuple(map(legible, run.trouble)))


def _attention(results: list[Result]) -> list[Section]:
    """Return the sections of the paper's figures, then what else was measured."""
    found = {section.key: section for section in sections(results)}
    order = [key for key in FIRST if key in found]
    ordered = (*order, *(key for key in found if key not in FIRST))
    return [_folded(found[key]) for key in ordered]


def _folded(section: Section) -> Section:
    """A section whose table opens on demand: those of several models are long."""
    shown = [section.shown] if section.shown else []
    return replace(section, shown=None, hidden=[*shown, *section.hidden])


def _own(summary: Summary) -> list[Section]:
    """Return the sections that only a study has."""
    parts = [
        _section(
            "emergence",
            "How it emerged",
            "What the last layers looked like while they were trained.",
            figure=_figures(summary, "study_emergence"),
            hidden=[_table("emergence", "By probe", summary.tables["emergence"])],
        ),
        _section(
            "accuracy",
            "Accuracy",
            "What the encoders are good for: frozen, and fine-tuned with labels. Percentages of "
            "held-out images; intervals are over seeds, where there are two or more.",
            shown=_table("accuracies", "By method", summary.tables["accuracies"]),
        ),
        _section(
            "drops",
            "Last blocks dropped",
            "Fine-tuned accuracy after the last blocks of the trained encoder were removed.",
            figure=_figures(summary, "study_drops"),
            shown=_table(
                "drops",
                "By number of dropped blocks",
                summary.tables["drops"].drop(columns="images"),
            ),
        ),
    ]
    return [part for part in parts if part.figures or part.shown]


def _section(
    key: str,
    title: str,
    lead: str,
    *,
    figure: Sequence[Figure] = (),
    shown: Table | None = None,
    hidden: Sequence[Table | None] = (),
) -> Section:
    return Section(key, title, lead, [], list(figure), shown, [each for each in hidden if each])


def _figures(summary: Summary, name: str) -> list[Figure]:
    plot: Plot = plugins.load(PLOTS, name, "PLOT")
    return [drawn(plot, summary)] if fills(plot, summary.tables) else []


def _table(key: str, title: str, frame: pd.DataFrame) -> Table | None:
    """Return a table of accuracies in percent, or of other numbers as they are."""
    if frame.empty:
        return None
    named = frame.assign(method=[METHODS[name] for name in frame["method"]])
    if "by_seed" in named:
        part = {name: 100 * named[name].astype(float) for name in PERCENT if name in named}
        named = named.assign(**part, by_seed=named["by_seed"].map(_percents))
    if "score" in named:
        named = named.assign(score=[SCORES[name] for name in named["score"]])
    return tables.built(key, title, named, HEADINGS)


def _percents(texts: str) -> str:
    return ", ".join(f"{100 * float(text):.2f}" for text in texts.split(", "))


def _topics(findings: pd.DataFrame) -> list[tuple[str, list[Row]]]:
    """Statements by topic, each as the page shows it."""
    found: dict[str, list[Row]] = {}
    for row in rows(findings):
        mark = MARKS.get(row.verdict, "open")
        told = Row(row.says, row.place, row.measured, row.verdict, mark, row.rule)
        found.setdefault(row.topic, []).append(told)
    return list(found.items())


def _missing(absent: pd.DataFrame) -> dict[str, Any]:
    """What is under way, and how much has not been begun."""
    under_way = [
        f"{row.step}: {row.state}"
        for row in rows(absent)
        if not row.state.startswith(("not ", "cannot"))
    ]
    table = tables.built("missing", "Steps to come", absent) if len(absent) else None
    return {"count": len(absent), "under_way": under_way, "table": table}


def _recipes(summary: Summary) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Methods, and each setting with its value for every one of them."""
    frame = summary.tables["recipes"]
    held = list(dict.fromkeys(frame["method"]))
    known = {(row.setting, row.method): row.value for row in rows(frame)}
    names = dict.fromkeys(frame["setting"])
    lines = [
        (str(name).replace("_", " "), [known.get((name, method), "") for method in held])
        for name in names
    ]
    titles = [METHODS.get(method, "Fine-tuning") for method in held]
    return titles, [line for line in lines if any(line[1])]


def _timings(frame: pd.DataFrame) -> Table | None:
    if frame.empty:
        return None
    told = frame.assign(time=[duration(seconds) for seconds in frame["seconds"].astype(float)])
    return tables.built("timings", "Time of each step", told)
