"""The page of a comparison: verdicts first, then differences, then everything about each model."""

from dataclasses import dataclass, replace
from typing import Any

from attnprobe import claims, plugins
from attnprobe.comparison import Comparison
from attnprobe.comparison.verdicts import NOBODY
from attnprobe.frames import rows
from attnprobe.plots import fills
from attnprobe.report.citations import bibtex
from attnprobe.report.comparison_methods import paragraphs
from attnprobe.report.explorer import explorer
from attnprobe.report.figures import PLOTS, Figure, drawn
from attnprobe.report.legible import legible, legible_frame, legible_result
from attnprobe.report.page import about, assemble
from attnprobe.report.sections import Section, sections
from attnprobe.report.tables import Table, built

MARKS = {
    claims.SUPPORTED: "yes",
    claims.CONTRADICTED: "no",
    claims.UNDECIDED: "open",
}
WORDS = {
    "distance": "Attention distance",
    "entropy": "Attention entropy",
    "head_kl": "Divergence between heads",
}
HEADINGS = {
    "model_a": "Model",
    "model_b": "Against",
    "quantity": "Quantity",
    "in": "Unit",
    "scale": "Scale",
    "alignment": "Aligned by",
    "depth": "Relative depth",
    "layer_a": "Layer",
    "layer_b": "Its layer",
    "head_a": "Head",
    "head_b": "Its head",
    "value_a": "Mean",
    "value_b": "Its mean",
    "difference": "Difference",
    "effect": "Effect size d",
    "images_needed": "Images needed",
    "wasserstein": "Wasserstein",
    "spread_a": "Spread",
    "spread_b": "Its spread",
    "value": "Value",
    "limit": "Limit",
}
PARTS = {  # table on the page, tables that open, title, lead
    "differences": (
        "overall",
        ("differences",),
        "Differences",
        "The first model less the other, image by image: what sets the models apart, and how sure "
        "that is.",
    ),
    "head_sets": (
        None,
        ("head_sets", "assignment"),
        "Heads as sets",
        "How widely the heads of a layer are spread, whichever head does what.",
    ),
    "cross_cka": (
        None,
        ("cross_cka",),
        "Similarity across models",
        "How alike the outputs of a layer of one model and a layer of another are, up to rotation "
        "and scale.",
    ),
    "running": (
        None,
        ("running",),
        "How many images are enough",
        "How the differences settle as images are added.",
    ),
}
TITLES = {
    "overall": "Over all layers",
    "differences": "By layer, all pairs",
    "head_sets": "By layer, all pairs",
    "assignment": "Heads paired one to one",
    "cross_cka": "By pair of layers, all pairs",
    "running": "By number of images, all pairs",
}

Limit = tuple[str, float, bool]  # name, value, and whether it was changed


@dataclass(frozen=True)
class Ruling:
    """One verdict as the page shows it.

    Attributes:
        statement: What was claimed.
        verdict: supported, contradicted or not decided.
        mark: Class of its mark: yes, no or open.
        evidence: The numbers that carry it.
    """

    statement: str
    verdict: str
    mark: str
    evidence: str


def render_comparison(comparison: Comparison) -> str:
    """Return the page about a comparison as text."""
    comparison = legible_comparison(comparison)
    results = list(comparison.results)
    first, last = _parts(comparison, "differences"), _parts(comparison, *list(PARTS)[1:])
    names = [result.name for result in results]
    every_verdict = _verdicts(comparison)
    return assemble(
        "compare.html.jinja",
        [*first, *sections(results), *last],
        results=results,
        explorer=explorer(results),
        title=" against ".join(names) if len(names) == 2 else f"{len(names)} models compared",
        matrix=_matrix(comparison),
        between=_between(comparison),
        judged=_judged(comparison),
        later=[every_verdict],
        verdict_table=every_verdict,
        decided=_decided(comparison),
        notes=comparison.notes,
        tested=" ".join(paragraphs(comparison)),
        **(about(results) | {"bibtex": bibtex({*comparison.tables, *results[0].tables})}),
    )


def legible_comparison(comparison: Comparison) -> Comparison:
    """A comparison whose names and words are all legible; its numbers are the same."""
    return replace(
        comparison,
        results=tuple(legible_result(result) for result in comparison.results),
        tables={name: legible_frame(table) for name, table in comparison.tables.items()},
        notes=tuple(legible(comparison.notes)),
    )


def _parts(comparison: Comparison, *keys: str) -> list[Section]:
    found = []
    for key in keys:
        shown, hidden, title, lead = PARTS[key]
        longer = [_table(comparison, name) for name in hidden]
        section = Section(
            key=key,
            title=title,
            lead=lead,
            definitions=[],
            figures=_figures(comparison, key),
            shown=_table(comparison, shown) if shown else None,
            hidden=[table for table in longer if table],
        )
        if section.figures or section.shown or section.hidden:
            found.append(section)
    return found


def _figures(comparison: Comparison, name: str) -> list[Figure]:
    plot = plugins.load(PLOTS, name, "PLOT")
    return [drawn(plot, comparison)] if fills(plot, comparison.tables) else []


def _table(comparison: Comparison, name: str) -> Table | None:
    frame = comparison.tables.get(name)
    if frame is None or frame.empty:
        return None
    frame = frame.assign(
        **{side: _names(comparison, frame[side]) for side in ("model_a", "model_b")}
    )
    if "metric" in frame:
        frame = frame.assign(metric=frame["metric"].map(lambda metric: WORDS.get(metric, metric)))
        frame = frame.rename(columns={"metric": "quantity", "unit": "in"})
    if name != "cross_cka":
        frame = frame.rename(columns={"value": "difference"})
    shown = frame.drop(columns="position", errors="ignore")
    return built(name, TITLES[name], shown, HEADINGS | _ends(comparison))


def _names(comparison: Comparison, numbers: Any) -> list[str]:
    return [comparison.results[at].name if at >= 0 else "" for at in numbers]


def _matrix(comparison: Comparison) -> list[tuple[claims.Claim, list[Ruling]]]:
    """Claims about single models, each with one ruling a model."""
    table = comparison.tables["verdicts"]
    alone = table.loc[table["model_b"] == NOBODY]
    return [
        (claims.load(str(name)), [_ruling(row) for row in rows(part.sort_values("model_a"))])
        for name, part in alone.groupby("claim", sort=True)
    ]


def _between(comparison: Comparison) -> list[Ruling]:
    """Rulings about pairs, those that are decided first."""
    table = comparison.tables["verdicts"]
    found = [_ruling(row) for row in rows(table.loc[table["model_b"] != NOBODY])]
    return sorted(found, key=lambda ruling: ruling.mark == "open")


def _ruling(row: Any) -> Ruling:
    return Ruling(row.statement, row.verdict, MARKS[row.verdict], row.evidence)


def _judged(
    comparison: Comparison,
) -> list[tuple[claims.Claim, str, list[tuple[str, float, bool]]]]:
    """Each claim with its quantity and its thresholds."""
    limits = claims.thresholds(comparison.options.thresholds)
    found = []
    for claim in map(claims.load, claims.names()):
        names = [*claim.thresholds, *([claim.limit + claims.MARGIN] if claim.versus else [])]
        changed = comparison.options.thresholds
        values = [(name, limits[name], name in changed) for name in names]
        found.append((claim, claim.quantity.format(**limits), values))
    return found


def _verdicts(comparison: Comparison) -> Table:
    frame = comparison.tables["verdicts"]
    names = {side: _names(comparison, frame[side]) for side in ("model_a", "model_b")}
    order = ["statement", "verdict", "evidence", "model_a", "model_b", "value", "low", "high"]
    frame = frame.assign(**names).reindex(columns=[*order, "limit", "quantity", "claim"])
    headings = {"quantity": "Judged quantity", "low": "Low", "high": "High"}
    return built("verdicts", "All verdicts", frame, HEADINGS | headings)


def _ends(comparison: Comparison) -> dict[str, str]:
    """Headings of the ends of intervals, with their coverage."""
    level = f"{100 * comparison.options.confidence:g} %"
    return {"low": f"{level} low", "high": f"{level} high"}


def _decided(comparison: Comparison) -> str:
    """The decided statements about the first pair, as an opening sentence."""
    table = comparison.tables["verdicts"]
    pair = table.loc[(table["model_a"] == 0) & (table["model_b"] == 1)]
    held = [
        f"{row.statement} ({row.evidence.rstrip('.')})."
        for row in rows(pair.loc[pair["verdict"] == claims.SUPPORTED])
    ]
    return " ".join(held) if len(comparison.results) == 2 else ""
