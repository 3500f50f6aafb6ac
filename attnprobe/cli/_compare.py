"""The work behind `compare`: measure what is no saved run, compare, save, print."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprobe.cli import EXIT_INTERRUPTED, _texts, _together
from attnprobe.cli._console import console, progress, put_json, records, say
from attnprobe.cli._measured import Plan, helped, is_run, left, log_lines, measured, target
from attnprobe.cli._options import LOADING
from attnprobe.cli._run import OPTION_FIELDS, command_line, kept, page
from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    from attnprobe.comparison import CompareOptions, Comparison
    from attnprobe.results import Result
    from attnprobe.results.runs import Runs

COMPARING = ("confidence", "permutations", "match_heads", "thresholds")
FOLLOWED = ("images", "split", "limit", "maps", "map_images", *OPTION_FIELDS)
FEWEST, MOST = 2, 8


def run(
    models: Sequence[str],
    values: dict[str, Any],
    given: set[str],
    *,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    as_json: bool,
) -> int:
    """Compare models, save the comparison with its page, print it; return the exit code.

    Args:
        models: Checkpoints and folders of saved runs.
        values: Every option of the command by name.
        given: Options that were not left at their default.
        out: Where to write.
        overwrite: Replace an older comparison there.
        resume: Keep the finished runs of an older comparison there.
        as_json: Print for programs.
    """
    from attnprobe.comparison.folder import KIND
    from attnprobe.results.runs import Runs

    _check_counts(models, values["names"])
    place = out or _default_place(models, values["names"])
    path = target(place, KIND, overwrite=overwrite, resume=resume)
    comparing = {name: values.pop(name) for name in COMPARING}
    options = _options(comparing, values)
    _follow(_saved(models), values, given)
    config = {"models": list(models), **values, **_plain(comparing)}
    plan = replace(_plan(models, values), place=place, resume=resume)
    _together.start(_together.states_of(place), plan.world, overwrite=overwrite)
    if helped(plan):
        return 0
    runs = Runs(path, KIND, resumed=resume)
    try:
        found = _finish(plan, runs, options, config)
    except KeyboardInterrupt:
        say(f"interrupted; {left(runs, plan, place) or 'nothing was written'}")
        return EXIT_INTERRUPTED
    except AttnprobeError as error:
        raise _together.told(error, left(runs, plan, place)) from error
    show(found, place, as_json=as_json)
    partial = any(result.provenance.skipped for result in found.results)
    return _together.exit_code(plan.world, partial=partial)


def _finish(
    plan: Plan, runs: "Runs", options: "CompareOptions", config: dict[str, Any]
) -> "Comparison":
    """Measure, compare, and write what stands beside the runs."""
    from attnprobe.comparison import compare, folder
    from attnprobe.report import render_comparison

    results = list(measured(plan, runs))
    with progress("comparing") as update:
        found = compare(results, options=options, progress=update)
    runs.start()
    texts = {**page(lambda: render_comparison(found)), "log.txt": _log(found)}
    stored = kept(config)
    stored = {key: list(x) if isinstance(x, tuple) else x for key, x in stored.items()}
    folder.finish(found, runs.path, runs.done, folder.files_of(found, texts, stored))
    return found


def show(found: "Comparison", out: Path, *, as_json: bool) -> None:
    """Print the verdicts: tables for people, or JSON for programs."""
    from attnprobe.report.verdict_tables import verdict_tables

    skipped = sorted({line for result in found.results for line in result.provenance.skipped})
    if as_json:
        put_json(
            {
                "out": str(out),
                "models": [result.name for result in found.results],
                "notes": list(found.notes),
                "skipped": skipped,
                "verdicts": records(found.tables["verdicts"]),
                "overall": records(found.tables["overall"]),
            }
        )
    else:
        screen = console()
        for table in verdict_tables(found):
            screen.print(table)
    for note in found.notes:
        say(f"note: {note}")
    if skipped:
        say(f"{len(skipped)} images could not be read; they are listed in {out / 'log.txt'}")
    say(f"wrote {out}; open {out / 'report.html'}")


def _check_counts(models: Sequence[str], names: Sequence[str]) -> None:
    if not FEWEST <= len(models) <= MOST:
        raise click.UsageError(f"compare takes {FEWEST} to {MOST} models, not {len(models)}")
    if names and len(names) != len(models):
        raise click.UsageError(f"{len(names)} names were given for {len(models)} models")


def _default_place(models: Sequence[str], names: Sequence[str]) -> Path:
    words = names or [_texts.folder_name(None, model) for model in models]
    return Path("runs", _texts.folder_name("-".join(["compare", *words]), ""))


def _options(comparing: dict[str, Any], values: dict[str, Any]) -> "CompareOptions":
    """Return the options of the comparison, checked before any work."""
    from attnprobe.claims import thresholds
    from attnprobe.comparison import CompareOptions
    from attnprobe.comparison.options import check_options

    draws = max(1000, values["resamples"])
    options = CompareOptions(**comparing, resamples=draws, seed=values["seed"])
    check_options(options)
    thresholds(options.thresholds)
    return options


def _saved(models: Sequence[str]) -> list["Result"]:
    """Return the saved runs among the models, which must be alike."""
    from attnprobe.comparison.pairing import checked
    from attnprobe.results import Result

    saved = [Result.load(model) for model in models if is_run(model)]
    if len(saved) > 1:
        checked(saved)
    return saved


def _plan(models: Sequence[str], values: dict[str, Any]) -> Plan:
    measuring = dict(values)
    names, images = (measuring.pop(name) for name in ("names", "images"))
    loading = {name: measuring.pop(name, None) for name in LOADING}
    return Plan(models, images, measuring, loading, names=names)


def _follow(saved: list["Result"], values: dict[str, Any], given: set[str]) -> None:
    """Measure checkpoints as the first saved run was, except where options say otherwise."""
    if not saved:
        return
    config = saved[0].config
    for name in FOLLOWED:
        if name not in given and name in config:
            values[name] = config[name]


def _plain(comparing: dict[str, Any]) -> dict[str, Any]:
    """Return settings as the command line takes them."""
    limits = [f"{name}={value:g}" for name, value in comparing["thresholds"].items()]
    return {**comparing, "thresholds": limits}


def _log(found: "Comparison") -> str:
    """Return the log of a comparison: what was compared, noted and skipped."""
    lines = [f"{datetime.now(UTC).isoformat(timespec='seconds')} {command_line()}"]
    for at, result in enumerate(found.results, start=1):
        facts = result.provenance
        lines.append(
            f"model {at} {result.name}: {facts.images} images in {facts.seconds} s on "
            f"{facts.device}; {facts.command}"
        )
        lines += log_lines(result)
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines) + "\n"
