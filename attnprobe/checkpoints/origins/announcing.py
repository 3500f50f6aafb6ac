"""Say on stderr what is downloaded, with rate and time left where a person watches."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attnprobe.processes import launched


@contextmanager
def announced(name: str, target: Path) -> Iterator[Callable[[int, int], None]]:
    """Show a download; yields `update(done, total)` in bytes. Nothing shows without an update."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        *(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()),
    )
    speaks = launched() == 1 or os.environ.get("RANK") == "0"
    screen = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not speaks)
    with Progress(
        *columns, console=screen, transient=True, disable=not (screen.is_terminal and speaks)
    ) as bar:
        task = bar.add_task(name, total=None, start=False)
        told: list[int] = []

        def update(done: int, total: int) -> None:
            if not told:
                screen.print(_sentence(name, target, done, total), markup=False)
                bar.start_task(task)
                told.append(done)
            bar.update(task, completed=done, total=total or None)

        yield update


def _sentence(name: str, target: Path, done: int, total: int) -> str:
    size = f"{total / 1e6:.1f} MB" if total else "a size that the server does not say"
    on = f", on from {done / 1e6:.1f} MB" if done else ""
    return f"downloading {name}: {size}{on}, to {target}"
