"""The work behind `compare`: measure what is no saved run, compare, save, print."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprobe.cli import EXIT_PARTIAL, _texts
from attnprobe.cli._console import console, progress, put_json, records, say
from attnprobe.cli._run import OPTION_FIELDS, command_line, settings

if TYPE_CHECKING:
    from attnprobe.comparison import Comparison
    from attnprobe.results import Result

COMPARING = ("confidence", "permutations", "match_heads", "thresholds")
FOLLOWED = ("images", "limit", "maps", "map_images", *OPTION_FIELDS)
FEWEST, MOST = 2, 8


def run(
    models: Sequence[str],
    values: dict[str, Any],
    given: set[str],
    *,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Compare models, save the comparison with its page, print it; return the exit code.

    Args:
        models: Checkpoints and folders of saved runs.
        values: Every option of the command by name.
        given: Options that were not left at their default.
        out: Where to write.
        overwrite: Replace an older comparison there.
        as_json: Print for programs.
    """
    from attnprobe.comparison import CompareOptions, compare
    from attnprobe.comparison.options import check_options
    from attnprobe.comparison.pairing import checked
    from attnprobe.report import render_comparison
    from attnprobe.results import check_output

    _check_counts(models, values["names"])
    names = values["names"] or [_texts.folder_name(None, model) for model in models]
    place = out or Path("runs", _texts.folder_name("-".join(["compare", *names]), ""))
    target = check_output(place, overwrite=overwrite)
    comparing = {name: values.pop(name) for name in COMPARING}
    options = CompareOptions(
        **comparing, resamples=max(1000, values["resamples"]), seed=values["seed"]
    )
    check_options(options)
    saved = {at: _saved(model) for at, model in enumerate(models) if is_run(model)}
    if len(saved) > 1:
        checked(list(saved.values()))
    _follow(saved, values, given)
    config = {"models": list(models), **values, **_plain(comparing)}
    results = _measured(models, saved, values)
    with progress("comparing") as update:
        found = compare(results, options=options, progress=update)
    texts = {"report.html": render_comparison(found), "log.txt": _log(found)}
    kept = {key: list(v) if isinstance(v, tuple) else v for key, v in config.items()}
    kept = {key: v for key, v in kept.items() if v is not None and key != "trust"}
    found.save(target, overwrite=overwrite, texts=texts, config=kept)
    show(found, place, as_json=as_json)
    return EXIT_PARTIAL if any(result.provenance.skipped for result in results) else 0


def is_run(model: str) -> bool:
    """Whether a folder with a manifest is meant, rather than a checkpoint."""
    return os.path.isfile(os.path.join(model, "manifest.json"))  # noqa: PTH113, PTH118 - never raise


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


def _saved(model: str) -> "Result":
    from attnprobe.results import Result

    return Result.load(model)


def _follow(saved: dict[int, "Result"], values: dict[str, Any], given: set[str]) -> None:
    """Measure checkpoints as the first saved run was, except where options say otherwise."""
    if not saved:
        return
    config = next(iter(saved.values())).config
    for name in FOLLOWED:
        if name not in given and name in config:
            values[name] = config[name]


def _measured(
    models: Sequence[str], saved: dict[int, "Result"], values: dict[str, Any]
) -> list["Result"]:
    """Return one result a model: the saved one, or a new measurement."""
    import attnprobe

    values = dict(values)
    names, trust, images = values.pop("names"), values.pop("trust"), values.pop("images")
    measuring = settings(values)
    results = []
    for at, source in enumerate(models):
        name = names[at] if names else None
        if at in saved:
            results.append(replace(saved[at], name=name or saved[at].name))
            continue
        model = attnprobe.load(source, name=name, trust=trust)
        with progress(f"{at + 1} of {len(models)}: measuring {model.spec.name}") as update:
            result = attnprobe.analyze(
                model, images, config=measuring, progress=update, command=command_line()
            )
        kept = {"checkpoint": source, "images": images, **result.config}
        results.append(replace(result, config=kept))
    return results


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
        lines += [f"  assumed: {line}" for line in result.model.get("assumed", ())]
        lines += [f"  skipped {line}" for line in facts.skipped]
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines) + "\n"
