"""Rows for `attnprobe list`, one dict a thing."""

from typing import Any


def rows(kind: str) -> list[dict[str, Any]]:
    """Return what attnprobe knows of one kind."""
    return {"checkpoints": _checkpoints, "formats": _formats, "metrics": _metrics, "plots": _plots}[
        kind
    ]()


def table(kind: str, found: list[dict[str, Any]]) -> Any:
    """Return the rows as a table for the terminal."""
    from rich import box
    from rich.table import Table

    screen = Table(title=kind, box=box.SIMPLE_HEAD)
    for heading in found[0]:
        screen.add_column(heading, overflow="fold")
    for row in found:
        screen.add_row(*(str(value) for value in row.values()))
    return screen


def _checkpoints() -> list[dict[str, Any]]:
    from attnprobe.catalogue import catalogue

    fields = ("name", "objective", "data", "architecture", "source")
    return [{field: getattr(record, field) for field in fields} for record in catalogue().values()]


def _formats() -> list[dict[str, Any]]:
    from attnprobe.formats import FORMATS

    return [{"name": item.name, "description": item.description} for item in FORMATS]


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
