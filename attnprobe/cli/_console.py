"""What commands print, and the progress bar. Messages go to stderr, results to stdout."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console


def console(*, stderr: bool = False) -> "Console":
    """Return a rich console; wide enough for the tables when output is not a terminal."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if found.is_terminal or os.environ.get("COLUMNS"):
        return found
    return Console(stderr=stderr, highlight=False, width=100)


def speaks() -> bool:
    """Whether this process is the one that talks, of those that a launcher started."""
    from attnprobe.processes import launched

    return launched() == 1 or os.environ["RANK"] == "0"


def say(text: str) -> None:
    """Print a message for people on stderr; control characters in names show as such."""
    from attnprobe.report.legible import legible

    if speaks():
        click.echo(legible(text), err=True)


def put_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def records(frame: Any) -> list[dict[str, Any]]:
    """Return a table as JSON records, with null for missing values."""
    return json.loads(frame.to_json(orient="records"))


@contextmanager
def progress(label: str) -> "Iterator[Callable[[int, int], None]]":
    """Show images done, rate and time left on a terminal; yields `update(done, total)`."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    screen = console(stderr=True)
    # elsewhere even a transient bar leaves a line behind
    hidden = not (screen.is_terminal and speaks())
    with Progress(*columns, console=screen, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f} images/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
