"""The page: sections chosen by the tables that the results hold, filled into a template."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from attnprobe.errors import ResultError
from attnprobe.plots import MOST, NIGHT, PALETTE
from attnprobe.report import tables
from attnprobe.report.citations import bibtex
from attnprobe.report.explorer import Explorer, explorer
from attnprobe.report.figures import embed
from attnprobe.report.legible import legible_result
from attnprobe.report.methods import paragraphs
from attnprobe.report.packing import pack
from attnprobe.report.sections import Section, sections
from attnprobe.report.summary import sentences
from attnprobe.report.tables import Table
from attnprobe.results import Result
from attnprobe.types import LoadLedger

ABSENT = "\N{EN DASH}"
HERE = Path(__file__).parent
SCRIPTS = ("tables.js", "unpack.js", "figures.js", "movies.js", "scroll.js", "cite.js")
EXPLORER = (
    *("attention.js", "drawing.js", "explorer.js", "cells.js"),
    *("views.js", "patches.js", "saving.js"),
)


def render(results: list[Result]) -> str:
    """The page about results as text.

    Raises:
        ResultError: There are no results or more than the figures can tell apart.
    """
    if not 1 <= len(results) <= MOST:
        raise ResultError(
            f"a report takes 1 to {MOST} results, not {len(results)}",
            "choose the models that matter most",
        )
    results = [legible_result(result) for result in results]
    return assemble(
        "page.html.jinja",
        sections(results),
        results=results,
        explorer=explorer(results),
        title=results[0].name if len(results) == 1 else f"{len(results)} models compared",
        **about(results),
    )


def about(results: list[Result]) -> dict[str, Any]:
    """What the closing sections of a page say of the models, for `about.html.jinja`."""
    return {
        "summaries": [(result, sentences(result)) for result in results],
        "ledgers": [_ledger(result) for result in results],
        "geometry": tables.geometry(results),
        "methods": _methods(results),
        "definitions": list(tables.definitions(results)),
        "bibtex": bibtex({name for result in results for name in result.tables}),
    }


def assemble(
    template: str,
    parts: list[Section],
    *,
    explorer: Explorer | None = None,
    later: Sequence[Table] = (),
    own: Sequence[str] = (),
    **words: Any,
) -> str:
    """Fill a template with sections, and embed their figures, tables, style and scripts.

    Args:
        template: Name of a file beside this one.
        parts: Sections in their order.
        explorer: Linked views of heads, for templates that have a place for them.
        later: Tables built when they are opened, beside those of the sections.
        own: Names of scripts that only this template needs.
        **words: What else the template names.
    """
    drawn = {figure.plot.name: figure.data for part in parts for figure in part.figures}
    hidden = [*later, *(table for part in parts for table in part.hidden)]
    longer = {table.key: vars(table) for table in hidden}
    night = dict(zip(PALETTE, NIGHT, strict=True))
    views = {"explorer": explorer.data} if explorer else {}
    names = (*SCRIPTS, *(EXPLORER if explorer else ()), *own)
    scripts = [_inert(_read(name)) for name in names]
    payload = {"figures": drawn, "tables": longer, "night": night, "plotly": _packed_plotly()}
    style = _read("page.css") + (_read("explorer.css") if explorer else "") + _swatches()
    return (
        _environment()
        .get_template(template)
        .render(
            sections=parts,
            explorer=explorer,
            payload=Markup(embed(payload | views)),
            style=Markup(style),
            scripts=[Markup(text) for text in scripts],
            policy=_policy([*scripts, _plotly()]),
            **words,
        )
    )


def _ledger(result: Result) -> list[tuple[str, list[str]]]:
    held = result.model.get("ledger", {})
    return [(kind, list(held.get(kind, ()))) for kind in LoadLedger().counts()]


def _methods(results: list[Result]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Methods with the names of the models they hold for; most often all of them."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        shared.setdefault(tuple(paragraphs(result)), []).append(result.name)
    return [(names, texts) for texts, names in shared.items()]


@cache
def _environment() -> Environment:
    """What draws pages; it keeps their templates compiled."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["lines"] = _lines
    environment.filters["fact"] = _fact
    return environment


def _swatches() -> str:
    """A class for each model's colour, so that words and figures agree."""
    day = [f".swatch-{n} {{ background: {hue}; }}" for n, hue in enumerate(PALETTE, start=1)]
    dark = [f".swatch-{n} {{ background: {hue}; }}" for n, hue in enumerate(NIGHT, start=1)]
    screen = "@media screen and (prefers-color-scheme: dark)"
    return "\n".join([*day, f"{screen} {{", *dark, "}", ""])


def _number(value: Any, places: int | None = None) -> str:
    """A number with its column's decimals or digits, and a dash for what was not measured."""
    if value is None:
        return ABSENT
    if places is None:
        return str(value)
    return f"{value:.{places}f}" if places >= 0 else f"{value:.{-places}g}"


def _lines(value: Any) -> list[str]:
    """An option as text, one line for each key of a mapping."""
    if isinstance(value, dict) and value:
        return [f"{key} = {_plain(item)}" for key, item in value.items()]
    return [_plain(value)]


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


def _plotly() -> str:
    """The text of plotly.js; imported here, so that machines without it train and measure."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    """The text of plotly.js, deflated; the page unpacks it and runs it by its hash."""
    return pack(_plotly().encode(), 9)


def _policy(scripts: list[str]) -> str:
    """No request at all, and only the scripts that this module wrote."""
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    known = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {known}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
