"""What the training commands do: settle the configuration, train, print how it ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from attnprobe.cli import EXIT_INTERRUPTED, EXIT_PARTIAL
from attnprobe.cli._console import console, put_json, say
from attnprobe.cli._run import command_line
from attnprobe.errors import AttnprobeError

LINE_EVERY = 30.0  # seconds between two lines of progress where there is no terminal


def run(
    objective: Any,
    given: dict[str, Any],
    *,
    recipe: str | None,
    config: Path | None,
    print_config: bool,
    out: Path | None,
    as_json: bool,
    **how: bool,
) -> int:
    """Train as the options say; return the exit code."""
    from attnprobe.training import folder
    from attnprobe.training.config import configure, read
    from attnprobe.training.recipes import load

    layers = [load(recipe).tables] if recipe else []
    layers += [read(config)] if config else []
    if how["resume"] and out is not None and not (recipe or config):
        layers.append(folder.stored(out))
    named = recipe or next((str(t["recipe"]) for t in layers if "recipe" in t), "")
    settled = configure(objective.name, objective.config, *layers, given, recipe=named)
    if print_config:
        click.echo(settled.toml(), nl=False)
        return 0
    if not settled.data.data:
        raise AttnprobeError("no images were named", "give --data: a folder, .npz, .tar or name")
    target = out or Path("runs", f"{objective.name}-{settled.model.model or 'init'}")
    try:
        outcome = _train(settled, target, **how)
    except KeyboardInterrupt:  # the second, or one before the first update
        say(f"stopped at once; --resume goes on from the last state in {target}, if there is one")
        return EXIT_INTERRUPTED
    if outcome.main:
        _show(outcome, as_json=as_json)
    if outcome.processes > 1 and outcome.status == "finished":
        return 0  # launchers take any other code for a crash of their process
    if outcome.status == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_PARTIAL if outcome.broken else 0


def _train(config: Any, out: Path, **how: bool) -> Any:
    from attnprobe.training.engine import train

    with _progress() as listener:
        return train(config, out, listener=listener, say=say, command=command_line(), **how)


def _show(outcome: Any, *, as_json: bool) -> None:
    from attnprobe.training.outputs import ENCODER

    if as_json:
        put_json(
            {
                "out": str(outcome.folder),
                "status": outcome.status,
                "step": outcome.step,
                "steps": outcome.steps,
                "scores": outcome.scores,
                "skipped": list(outcome.broken),
            }
        )
    for name, value in sorted(outcome.scores.items()):
        say(f"{name}: {value:.4f}")
    if outcome.broken:
        say(f"{len(outcome.broken)} images could not be read; manifest.json lists them")
    if outcome.status == "interrupted":
        say(
            f"stopped after update {outcome.step} of {outcome.steps}; the state is saved: "
            "repeat the command with --resume"
        )
    else:
        say(f"wrote {outcome.folder / ENCODER}; next: attnprobe analyze {outcome.folder}")


@contextmanager
def _progress() -> Iterator[Callable[[Any], None]]:
    """Show updates, loss, rate and time left: a bar on a terminal, else a line now and then."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    last = began - LINE_EVERY  # the first update is told at once
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("training", total=None, told="")
        first: int | None = None

        def listen(update: Any) -> None:
            nonlocal last, first
            first = update.step - 1 if first is None else first
            told = f"epoch {update.epoch:.2f}  loss {update.loss:.4f}"
            told += f"  {update.images_per_s:.0f} images/s" if update.images_per_s else ""
            bar.update(task, completed=update.step, total=update.steps, told=told)
            now = time.monotonic()
            if not screen.is_terminal and now - last >= LINE_EVERY:
                last = now
                left = (update.steps - update.step) * (now - began) / max(update.step - first, 1)
                say(f"{update.step}/{update.steps}  {told}  {_clock(left)} left")

        yield listen


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
