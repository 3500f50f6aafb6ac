"""Sections of the page: one quantity each, chosen by the tables that the results hold."""

from dataclasses import dataclass

from attnprobe.report import tables
from attnprobe.report.figures import Figure, figures
from attnprobe.report.tables import Table
from attnprobe.results import Result

LEADS = {
    "layer_means": ("Side by side", "The layer means of all models on common axes."),
    "distance": (
        "Attention distance",
        "How far from itself a patch looks: small values mean local attention.",
    ),
    "entropy": (
        "Attention entropy",
        "How widely a patch spreads its attention: zero is one single key.",
    ),
    "head_kl": (
        "Head diversity",
        "How differently the heads of one layer attend: zero means that they are equal.",
    ),
    "prefix_mass": (
        "Attention on prefix tokens",
        "How much attention patches give to tokens that have no place in the image.",
    ),
    "cka": (
        "Similarity between layers",
        "How alike the outputs of two layers are, up to rotation and scale.",
    ),
}
PART_OF = {"head_kl_mean": "head_kl"}
DETAIL = {"head_kl": "By pair of heads", "cka": "By pair of layers", "prefix_mass": "By head"}


@dataclass(frozen=True)
class Section:
    """One quantity: its words, figures and tables.

    Attributes:
        key: Anchor.
        title: Heading.
        lead: What the quantity means, in a sentence.
        definitions: Its tables with the exact definitions that their numbers carry.
        figures: Figures about it.
        shown: Table on the page.
        hidden: Longer tables, built when they are opened.
    """

    key: str
    title: str
    lead: str
    definitions: list[tuple[str, str]]
    figures: list[Figure]
    shown: Table | None
    hidden: list[Table]


def sections(results: list[Result]) -> list[Section]:
    """Known quantities in their usual order, then whatever else the results hold."""
    drawn = figures(results)
    held = [name for result in results for name, table in result.tables.items() if len(table)]
    found = dict.fromkeys(PART_OF.get(name, name) for name in held)
    order = [name for name in LEADS if name in found]
    order += sorted(name for name in found if name not in LEADS)
    parts = [_section(name, results, drawn) for name in order]
    return [part for part in parts if part.figures or part.shown or part.hidden]


def _section(name: str, results: list[Result], drawn: list[Figure]) -> Section:
    title, lead = LEADS.get(name, (name.replace("_", " ").capitalize(), ""))
    parts = [*(part for part, home in PART_OF.items() if home == name), name]
    longer = [
        tables.whole(part, DETAIL.get(part, "By head"), results)
        for part in parts
        if part != "layer_means"
    ]
    return Section(
        key=name,
        title=title,
        lead=lead,
        definitions=[pair for pair in tables.definitions(results) if pair[0] in parts],
        figures=[figure for figure in drawn if figure.plot.needs[0] in parts],
        shown=tables.metric_means(name, results),
        hidden=[part for part in longer if part is not None],
    )
