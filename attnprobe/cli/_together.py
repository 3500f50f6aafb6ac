"""Measuring in one process or in several, so that an interruption loses one batch."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.cli import EXIT_PARTIAL
from attnprobe.cli._console import progress, speaks
from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    from attnprobe.processes import World
    from attnprobe.results import Result

GO_ON = "to go on, give the same command with --resume"


def world() -> "World":
    """Return the processes that measure: those that a launcher started, or this one alone."""
    from attnprobe.processes import World, joined, launched

    return joined() if launched() > 1 else World()


def state_of(out: Path) -> Path:
    """Return where the state of a measurement is kept: beside its output, hidden.

    >>> str(state_of(Path("runs/mae")))
    'runs/.mae.unfinished'
    """
    folder = Path(os.path.abspath(out))  # noqa: PTH100 - links stay as they are
    folder = folder if out.is_absolute() or out.name in {"", ".", ".."} else out
    return folder.with_name(f".{folder.name}.unfinished")


def states_of(place: Path) -> Path:
    """Return where a collection keeps the states of its measurements."""
    return state_of(place).with_suffix(".unfinished-runs")


def measure(
    model: Any,
    images: str,
    config: Any,
    world: "World",
    *,
    state: Path,
    resume: bool,
    label: str,
    command: str,
) -> "Result | None":
    """Measure a loaded model; None in all but the main process.

    Args:
        model: The model.
        images: Where the images are.
        config: How to measure.
        world: The processes.
        state: Where every batch is kept.
        resume: Whether to go on from what is there.
        label: What to say beside the progress bar.
        command: What to record as the command.
    """
    from attnprobe.analysis import analyze_together

    several = f" (process 1 of {world.count})" if world.count > 1 else ""
    with progress(label + several) as update:
        return analyze_together(
            model,
            images,
            world,
            config=config,
            progress=update,
            command=command,
            state=state,
            resume=resume,
        )


def saved(world: "World", state: Path) -> None:
    """Remove the state of a measurement, once the main process has saved its result."""
    from attnprobe.unfinished import remove_all

    world.shared(None)  # not before it has
    remove_all(state)
    with suppress(OSError):  # others are in it, or another process was faster
        if state.parent.name.endswith(".unfinished-runs"):
            state.parent.rmdir()


def start(state: Path, world: "World", *, overwrite: bool) -> None:
    """Remove an older state that is to be replaced."""
    from attnprobe.unfinished import remove_all

    if overwrite and world.main:
        remove_all(state)


def left(state: Path) -> str:
    """Say what an interruption leaves, and how to go on; nothing where it leaves nothing."""
    from attnprobe.unfinished import Unfinished, remove_all

    if Unfinished(state).files():
        return f"what was measured is kept; {GO_ON}"
    if speaks():
        remove_all(state)
    return ""


def unfinished(place: Path) -> bool:
    """Whether a collection has measurements that were interrupted."""
    root = states_of(place)
    inside = sorted(root.iterdir()) if root.is_dir() else []
    kept = [left(state) for state in inside]  # all of them: empty ones go
    return any(kept)


def exit_code(world: "World", *, partial: bool) -> int:
    """Return the exit code of a run that is done; launchers take any but 0 for a crash."""
    return EXIT_PARTIAL if partial and world.count == 1 else 0


def told(error: AttnprobeError, words: str) -> AttnprobeError:
    """Return an error that also says how to go on."""
    if "--resume" in error.remedy or "--overwrite" in error.remedy:
        return error
    return type(error)(error.cause, "; ".join(filter(None, (error.remedy, words))))
