"""The work behind `track`: measure what is not measured yet, put it in order, save, print."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprobe.cli import EXIT_INTERRUPTED, _texts, _together
from attnprobe.cli._console import console, put_json, records, say
from attnprobe.cli._measured import Plan, helped, left, log_lines, measured, target
from attnprobe.cli._options import LOADING
from attnprobe.cli._run import command_line, kept
from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    from attnprobe.results import Result
    from attnprobe.results.runs import Runs
    from attnprobe.tracking import Track


def run(
    checkpoints: Sequence[str],
    values: dict[str, Any],
    *,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    as_json: bool,
) -> int:
    """Measure the checkpoints, save the track and print it; return the exit code."""
    from attnprobe.results.runs import Runs
    from attnprobe.tracking.folder import KIND

    config = {"checkpoints": list(checkpoints), **values}
    name, given = values.pop("name"), values.pop("steps")
    _check(checkpoints, given)
    name = name or _common_name(checkpoints)
    place = out or Path("runs", f"track-{_texts.folder_name(name, '')}")
    loading = {key: values.pop(key) for key in LOADING}
    images = values.pop("images")
    plan = Plan(checkpoints, images, values, loading, place=place, resume=resume)
    _together.start(_together.states_of(place), plan.world, overwrite=overwrite)
    if helped(plan):
        return 0
    runs = Runs(target(place, KIND, overwrite=overwrite, resume=resume), KIND, resumed=resume)
    try:
        results = _alike(measured(plan, runs))
        found = _track(results, runs, given, name=name, plan=plan)
        names = _finish(found, runs, config)
    except KeyboardInterrupt:
        say(f"interrupted; {left(runs, plan, place) or 'nothing was written'}")
        return EXIT_INTERRUPTED
    except AttnprobeError as error:
        raise _together.told(error, left(runs, plan, place)) from error
    show(found, names, place, as_json=as_json)
    partial = any(result.provenance.skipped for result in results)
    return _together.exit_code(plan.world, partial=partial)


def show(found: "Track", runs: list[str], out: Path, *, as_json: bool) -> None:
    """Print the track: what changed for people, or JSON for programs."""
    from attnprobe.report.terminal_track import changes_table
    from attnprobe.report.tracksummary import sentences, skipped

    lines = skipped(found)
    if as_json:
        facts = {"out": str(out), "name": found.name, "word": found.word}
        facts |= {"steps": list(found.steps), "source": found.source, "runs": runs}
        tables = {name: records(found.tables[name]) for name in ("changes", "settled")}
        put_json({**facts, "skipped": lines, **tables})
    else:
        screen = console()
        screen.print(changes_table(found))
        for text in sentences(found):
            screen.print(text, markup=False)
    assumed = [line for result in found.results for line in result.model.get("assumed", ())]
    for line in dict.fromkeys(assumed):
        say(f"assumed: {line}")
    say(f"the place of a checkpoint in the training is told by {found.source}")
    for line in lines[:5]:
        say(f"skipped {line}")
    if lines:
        say(f"{len(lines)} images could not be read; they are listed in {out / 'log.txt'}")
    say(f"wrote {out}; open {out / 'report.html'}")


def _check(checkpoints: Sequence[str], steps: Sequence[float] | None) -> None:
    """Refuse before any work what could not become a track."""
    from attnprobe.tracking import order

    if len(checkpoints) < 2:
        raise click.UsageError("track takes two checkpoints or more")
    twice = [name for at, name in enumerate(checkpoints) if name in checkpoints[:at]]
    if twice:
        raise click.UsageError(f"{twice[0]} is given twice")
    if steps is not None:
        order.given(steps, checkpoints)


def _common_name(checkpoints: Sequence[str]) -> str:
    """Return the name of the folder that holds all checkpoints, or else that of the first one."""
    folders = {os.path.dirname(os.path.abspath(name)) for name in checkpoints}  # noqa: PTH100, PTH120
    common = Path(folders.pop()).name if len(folders) == 1 else ""
    return _texts.folder_name(common or None, checkpoints[0])


def _alike(results: Iterable["Result"]) -> list["Result"]:
    """Return the results without per-image values; the first that differs from the rest ends it."""
    from attnprobe.tracking import check_alike

    found: list[Result] = []
    for result in results:
        found.append(replace(result, samples={}, arrays={}))
        check_alike(found[0], result)
    return found


def _track(
    results: list["Result"],
    runs: "Runs",
    given: Sequence[float] | None,
    *,
    name: str,
    plan: Plan,
) -> "Track":
    """Return the track; `runs.done` is in its order afterwards."""
    from attnprobe.tracking import steps_of, track

    steps = steps_of(results, given)
    rank = sorted(range(len(results)), key=lambda at: steps.values[at])
    runs.done[:] = [runs.done[at] for at in rank]
    ordered = replace(steps, values=tuple(steps.values[at] for at in rank))
    draws = {key: plan.measuring[key] for key in ("resamples", "seed")}
    whole = (runs.load(folder) for folder in runs.done)
    return track(whole, ordered, name=name, **draws)


def _finish(found: "Track", runs: "Runs", config: dict[str, Any]) -> list[str]:
    """Write what stands beside the runs; return their names in the order of the steps."""
    from attnprobe.report.trackpage import render
    from attnprobe.tracking import folder

    runs.start()
    texts = {"report.html": render(found), "log.txt": _log(found, runs.done)}
    stored = {key: value for key, value in kept(config).items() if value is not None}
    if "steps" in stored:
        stored["steps"] = ",".join(f"{step:g}" for step in stored["steps"])
    stored = {key: list(x) if isinstance(x, tuple) else x for key, x in stored.items()}
    folder.finish(found, runs.path, runs.done, stored, texts)
    return runs.done


def _log(found: "Track", runs: list[str]) -> str:
    """Return the log of a track: its checkpoints, their steps, what was assumed and skipped."""
    lines = [
        f"{datetime.now(UTC).isoformat(timespec='seconds')} {command_line()}",
        f"the place of a checkpoint in the training is told by {found.source}",
    ]
    for step, name, result in zip(found.steps, runs, found.results, strict=True):
        facts = result.provenance
        lines.append(
            f"{found.word} {step:g}: {result.name} in runs/{name}, {facts.images} images in "
            f"{facts.seconds} s on {facts.device}"
        )
        lines += log_lines(result)
    return "\n".join(lines) + "\n"
