"""Rows for `attnprobe list`, one dict a thing."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

WHOLE = ("name",)  # one has to copy it
WHERE_IT_FITS = (*WHOLE, "architecture")
LEAST = ("weights", "data", "architecture", "objective")  # dropped in this order for space
SHIPPED = "shipped"
# the columns that are shown; --json gives all
COLUMNS = {"checkpoints": ("name", "objective", "data", "architecture", "weights", "from")}


def rows(kind: str, filters: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return what attnprobe knows of one kind.

    Args:
        kind: Which.
        filters: Texts, or patterns with *, by what they are looked for in.
    """
    if kind == "checkpoints":
        return _checkpoints(filters or {})
    makers = {
        "claims": _claims,
        "exports": _exports,
        "formats": _formats,
        "metrics": _metrics,
        "objectives": _objectives,
        "plots": _plots,
        "recipes": _recipes,
    }
    return makers[kind]()


def show(found: list[dict[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print the rows as a table whose names stay whole, so that they can be copied."""
    from attnprobe.cli._console import console

    screen = console()
    headings = list(columns or found[0])
    if {row.get("from", SHIPPED) for row in found} == {SHIPPED}:
        headings = [heading for heading in headings if heading != "from"]
    for heading in LEAST:
        if _width(screen, _table(found, headings)) > screen.width:
            headings = [other for other in headings if other != heading]
    table = _table(found, headings, WHERE_IT_FITS)
    if _width(screen, table) > screen.width:
        table = _table(found, headings)
    screen.width = max(screen.width, _width(screen, table))
    screen.print(table)


def _width(screen: Any, table: Any) -> int:
    """Return the columns that a table needs to break no word."""
    from rich.measure import Measurement

    return Measurement.get(screen, screen.options.update(width=1000), table).minimum


def _table(found: list[dict[str, Any]], headings: list[str], whole: tuple[str, ...] = WHOLE) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        screen.add_column(heading, no_wrap=heading in whole, overflow="fold")
    for row in found:
        screen.add_row(*(Text(str(row[heading])) for heading in headings))
    return screen


def nothing(filters: Mapping[str, str]) -> str:
    """Say that no checkpoint is so, and what there is."""
    from attnprobe.catalogue import catalogue

    asked = " and ".join(f"{name} {text!r}" for name, text in filters.items())
    known = sorted({record.objective for record in catalogue().values()})
    return f"no checkpoint has {asked}; objectives: {'; '.join(known)}"


def _checkpoints(filters: Mapping[str, str]) -> list[dict[str, Any]]:
    from attnprobe.catalogue import catalogue, origin

    fields = ("name", "objective", "data", "architecture", "licence", "source")
    looked_in = {"arch": "architecture"}
    found = []
    for record in catalogue().values():
        row = {field: getattr(record, field) for field in fields}
        row |= {"weights": record.come_from, "from": origin(record.name)}
        if all(fits(text, row[looked_in.get(name, name)]) for name, text in filters.items()):
            found.append(row)
    return found


def fits(wanted: str, text: str) -> bool:
    """Whether a text holds what is wanted, or is of its pattern; case does not matter.

    >>> fits("vit_base", "vit_base_patch16_224"), fits("swin*", "vit_swin"), fits("MIM", "mim")
    (True, False, True)
    """
    wanted, text = wanted.lower(), text.lower()
    return fnmatchcase(text, wanted) if set(wanted) & set("*?[") else wanted in text


def _claims() -> list[dict[str, Any]]:
    from attnprobe import claims

    limits = claims.defaults()
    found = [claims.load(name) for name in claims.names()]
    return [
        {
            "name": claim.name,
            "supported where": claim.quantity.format(**limits),
            "thresholds": ", ".join(f"{name}={limits[name]:g}" for name in _changeable(claim)),
        }
        for claim in found
    ]


def _changeable(claim: Any) -> list[str]:
    from attnprobe.claims import MARGIN

    return [*claim.thresholds, *([claim.limit + MARGIN] if claim.versus else [])]


def _exports() -> list[dict[str, Any]]:
    from attnprobe import plugins

    package = "attnprobe.exports"
    found = [plugins.load(package, name, "EXPORT") for name in plugins.names(package)]
    return [{"name": item.name, "description": item.description} for item in found]


def _objectives() -> list[dict[str, Any]]:
    from attnprobe import objectives

    found = [objectives.load(name) for name in objectives.names()]
    return [
        {"name": item.name, "trains for": item.title, "labels": "yes" if item.labelled else "no"}
        for item in found
    ]


def _recipes() -> list[dict[str, Any]]:
    from attnprobe.training import recipes

    fields = ("name", "objective", "reproduces", "expected", "cost")
    found = [recipes.load(name) for name in recipes.names()]
    return [{field: getattr(recipe, field) for field in fields} for recipe in found]


def _formats() -> list[dict[str, Any]]:
    from attnprobe.formats import formats

    return [{"name": item.name, "description": item.description} for item in formats()]


def _metrics() -> list[dict[str, Any]]:
    from attnprobe import metrics
    from attnprobe.types import MetricOptions

    found = [metrics.load(name) for name in metrics.names()]
    options = MetricOptions()
    return [
        {"name": m.name, "axes": ", ".join(m.axes), "definition": m.definition(options)}
        for m in found
    ]


def _plots() -> list[dict[str, Any]]:
    from attnprobe import plugins

    found = [
        plugins.load("attnprobe.plots", name, "PLOT") for name in plugins.names("attnprobe.plots")
    ]
    return [
        {"name": plot.name, "title": plot.title, "needs": ", ".join(plot.needs)} for plot in found
    ]
