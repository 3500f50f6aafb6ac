"""Run steps side by side, each in a process of its own; stop and go on safely."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from attnprobe.errors import AttnprobeError
from attnprobe.reproduction.steps import Step

ATTENDED = (sys.executable, "-m", "attnprobe.reproduction.attended")  # ends when this ends
POLL = 0.2  # seconds
PATIENCE = 60.0  # seconds that an interrupted step may take to save its state
PARTIAL = 3  # the exit code of a result that lacks some images


@dataclass
class Running:
    """A step under way."""

    step: Step
    process: subprocess.Popen
    began: float


@dataclass
class Progress:
    """How far the steps are.

    Attributes:
        done: Names of finished steps.
        seconds: What each step took that was run here.
    """

    done: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    steps: Sequence[Step],
    logs: Path,
    *,
    jobs: int,
    told: Callable[[Step, Progress], None] = lambda step, progress: None,
) -> Progress:
    """Run every step that is not done yet, `jobs` at once, each after what it needs.

    Args:
        steps: The steps, in the order in which they are begun where they can.
        logs: Folder for what each step prints.
        jobs: Steps at a time.
        told: Called after each step.

    Raises:
        AttnprobeError: A step failed; the others were stopped.
        KeyboardInterrupt: As it came, after the steps under way saved what they have.
    """
    progress = Progress({step.name for step in steps if step.done})
    waiting = [step for step in steps if step.name not in progress.done]
    under_way: list[Running] = []
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or under_way:
            for step in _ready(waiting, progress)[: max(jobs - len(under_way), 0)]:
                waiting.remove(step)
                under_way.append(_begin(step, logs))
            for one in [one for one in under_way if one.process.poll() is not None]:
                under_way.remove(one)
                _end(one, logs, progress)
                told(one.step, progress)
            time.sleep(POLL)
    finally:
        _stop(under_way)
    return progress


def _ready(waiting: Sequence[Step], progress: Progress) -> list[Step]:
    return [step for step in waiting if set(step.needs) <= progress.done]


def _begin(step: Step, logs: Path) -> Running:
    if step.config:
        path = Path(step.command[step.command.index("--config") + 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step.config, encoding="utf-8")
    with _log(step, logs).open("ab") as log:
        # in a group of its own, so that Ctrl-C reaches it once, from here
        process = subprocess.Popen(
            (*ATTENDED, *step.arguments()),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    return Running(step, process, time.monotonic())


def _end(one: Running, logs: Path, progress: Progress) -> None:
    _let_go(one.process)
    status, log = one.process.returncode, _log(one.step, logs)
    if status not in (0, PARTIAL) or not one.step.done:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise AttnprobeError(
            f"{one.step.name} ended with exit code {status}: {' / '.join(last)}",
            f"see {log}; repeat the command with --resume when it is mended",
        )
    progress.done.add(one.step.name)
    progress.seconds[one.step.name] = time.monotonic() - one.began


def _stop(under_way: Sequence[Running]) -> None:
    """Ask every process to save its state and end; end those that do not."""
    for one in under_way:
        with suppress(ProcessLookupError):
            one.process.terminate()
    until = time.monotonic() + PATIENCE
    for one in under_way:
        try:
            one.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
        _let_go(one.process)


def _let_go(process: subprocess.Popen) -> None:
    """Close the pipe that tells a step whether this process is there."""
    if process.stdin is not None:
        process.stdin.close()


def _log(step: Step, logs: Path) -> Path:
    return logs / f"{step.name.replace('/', '-')}.txt"
