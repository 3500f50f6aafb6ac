"""The page: sections chosen by the tables that the results hold, filled into a template."""

import base64
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from attnprobe.plots import MOST
from attnprobe.report import tables
from attnprobe.report.figures import Figure, embed, figures
from attnprobe.report.summary import sentences
from attnprobe.report.tables import Table
from attnprobe.results import Result
from attnprobe.types import LoadLedger, ResultError

ABSENT = "\N{EN DASH}"
HERE = Path(__file__).parent
SCRIPTS = ("tables.js", "figures.js")
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
        definitions: The exact definitions that its numbers carry.
        figures: Figures about it.
        shown: Table on the page.
        hidden: Longer tables, built when they are opened.
    """

    key: str
    title: str
    lead: str
    definitions: list[str]
    figures: list[Figure]
    shown: Table | None
    hidden: list[Table]


def render(results: list[Result]) -> str:
    """The page as text.

    Raises:
        ResultError: There are no results or more than the figures can tell apart.
    """
    if not 1 <= len(results) <= MOST:
        raise ResultError(
            f"a report takes 1 to {MOST} results, not {len(results)}",
            "choose the models that matter most",
        )
    sections = _sections(results)
    drawn = {figure.plot.name: figure.data for part in sections for figure in part.figures}
    longer = {table.key: asdict(table) for part in sections for table in part.hidden}
    scripts = [_inert(get_plotlyjs()), *(_inert(_read(name)) for name in SCRIPTS)]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            results=results,
            title=results[0].name if len(results) == 1 else f"{len(results)} models compared",
            summaries=[(result, sentences(result)) for result in results],
            ledgers=[_ledger(result) for result in results],
            sections=sections,
            geometry=tables.geometry(results),
            definitions=list(tables.definitions(results)),
            payload=Markup(embed({"figures": drawn, "tables": longer})),
            style=Markup(_read("page.css")),
            scripts=[Markup(text) for text in scripts],
            policy=_policy(scripts),
        )
    )


def _sections(results: list[Result]) -> list[Section]:
    drawn = figures(results)
    held = [name for result in results for name, table in result.tables.items() if len(table)]
    found = dict.fromkeys(PART_OF.get(name, name) for name in held)
    order = [name for name in LEADS if name in found]
    order += sorted(name for name in found if name not in LEADS)
    sections = [_section(name, results, drawn) for name in order]
    return [part for part in sections if part.figures or part.shown or part.hidden]


def _section(name: str, results: list[Result], drawn: list[Figure]) -> Section:
    title, lead = LEADS.get(name, (name.replace("_", " ").capitalize(), ""))
    parts = [name, *(part for part, home in PART_OF.items() if home == name)]
    mine = [
        figure
        for figure in drawn
        if PART_OF.get(figure.plot.needs[0], figure.plot.needs[0]) == name
    ]
    longer = [
        tables.whole(part, DETAIL.get(part, "By head"), results)
        for part in parts
        if part != "layer_means"
    ]
    return Section(
        key=name,
        title=title,
        lead=lead,
        definitions=list(
            dict.fromkeys(text for part, text in tables.definitions(results) if part in parts)
        )
        if name != "layer_means"
        else [],
        figures=sorted(mine, key=lambda figure: figure.plot.name),
        shown=tables.metric_means(name, results),
        hidden=[part for part in longer if part is not None],
    )


def _ledger(result: Result) -> list[tuple[str, list[str]]]:
    held = result.model.get("ledger", {})
    return [(kind, list(held.get(kind, ()))) for kind in LoadLedger().counts()]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _number
    environment.filters["plain"] = _plain
    environment.filters["fact"] = _fact
    return environment


def _number(value: Any) -> str:
    """Four significant digits, and a dash for what was not measured."""
    if value is None:
        return ABSENT
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    """An option as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_plain(item)}" for key, item in value.items()) or ABSENT
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or ABSENT
    return ABSENT if value in (None, "") else str(value)


def _fact(value: Any) -> str:
    """A headline fact: large counts shortened, sizes without the channel axis."""
    if isinstance(value, list | tuple):
        return tables.TIMES.join(str(item) for item in value[-2:]) + " px"
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value / 1_000_000:.3g} M"
    return str(value)


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _inert(script: str) -> str:
    """Script text that cannot end its own element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: list[str]) -> str:
    """No request at all, and only the scripts that this module wrote."""
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    known = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {known}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
