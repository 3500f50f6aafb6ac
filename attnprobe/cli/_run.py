"""The work behind `analyze` and `demo`: measure, save, print."""

import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnprobe.cli import EXIT_INTERRUPTED, _together
from attnprobe.cli._console import console, put_json, records, say
from attnprobe.errors import AttnprobeError

OPTION_FIELDS = (
    "distance_unit",
    "entropy_unit",
    "prefix",
    "average",
    "divergence",
    "cka_tokens",
    "cka_estimator",
    "cka_batch",
    "query_step",
)


def settings(values: dict[str, Any]) -> Any:
    """Return an AnalysisConfig from command-line values."""
    from attnprobe.analysis import AnalysisConfig
    from attnprobe.types import MetricOptions

    options = MetricOptions(**{name: values.pop(name) for name in OPTION_FIELDS})
    values["metrics"] = tuple(values["metrics"] or AnalysisConfig.metrics)
    values["map_images"] = tuple(values["map_images"])
    return AnalysisConfig(options=options, **values)


def run(
    checkpoint: str,
    images: str,
    config: Any,
    *,
    out: Path,
    overwrite: bool,
    resume: bool = False,
    as_json: bool,
    loading: dict[str, Any],
) -> int:
    """Analyze, save the run folder with its report, print a table; return the exit code."""
    import attnprobe
    from attnprobe.results import check_output

    target, state = check_output(out, overwrite=overwrite), _together.state_of(out)
    world = _together.world()
    try:
        model = attnprobe.load(checkpoint, **loading)
        _together.start(state, world, overwrite=overwrite and not resume)
        result = _together.measure(
            model,
            images,
            config,
            world,
            state=state,
            resume=resume,
            label=f"measuring {model.spec.name}",
            command=command_line(),
        )
        if result is not None:
            given = {"checkpoint": checkpoint, "images": images, "loading": loading}
            result = _save(result, target, overwrite=overwrite, **given)
        _together.saved(world, state)
    except KeyboardInterrupt:
        say(f"interrupted; {_together.left(state) or 'nothing was written'}")
        return EXIT_INTERRUPTED
    except AttnprobeError as error:
        raise _together.told(error, _together.left(state)) from error
    if result is None:
        return 0
    show(result, out, as_json=as_json)
    return _together.exit_code(world, partial=bool(result.provenance.skipped))


def _save(
    result: Any,
    target: Path,
    *,
    overwrite: bool,
    checkpoint: str,
    images: str,
    loading: dict[str, Any],
) -> Any:
    """Write the run folder; return the result as it was written."""
    from dataclasses import replace

    from attnprobe.report.page import render

    given = {"checkpoint": checkpoint, "images": images}
    run_config = {**given, **result.config, **kept(loading)}
    result = replace(result, config=run_config)
    texts = {**page(lambda: render([result])), "log.txt": log(result)}
    result.save(target, overwrite=overwrite, texts=texts)
    return result


def page(draw: Callable[[], str]) -> dict[str, str]:
    """Return the page by its file's name; nothing, and a word, on a machine without plotly."""
    try:
        return {"report.html": draw()}
    except ModuleNotFoundError as error:  # what was measured is not lost for the want of a page
        say(f"no page: {error}; `attnprobe report` draws it on a machine that has it")
        return {}


def kept(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a run remembers.

    A saved configuration must never let code run: trust and plugins are given by hand.
    """
    return {name: value for name, value in options.items() if name not in {"trust", "plugins"}}


def command_line() -> str:
    """Return what was typed, quoted so that it can be pasted."""
    return shlex.join(["attnprobe", *sys.argv[1:]])


def log(result: Any) -> str:
    """Return the log of a run: what was read, assumed, skipped, and how long it took."""
    facts, card = result.provenance, result.model
    lines = [
        f"{datetime.now(UTC).isoformat(timespec='seconds')} {facts.command}",
        f"model {result.name}: {card.get('architecture', '')} from {card.get('source', '')}",
        *(f"assumed: {line}" for line in card.get("assumed", ())),
        f"measured {facts.images} images in {facts.seconds} s on {facts.device} ({facts.kernel})",
        *(f"skipped {line}" for line in facts.skipped),
    ]
    return "\n".join(lines) + "\n"


def show(result: Any, out: Path, *, as_json: bool) -> None:
    """Print the result: a table for people, or JSON for programs."""
    from attnprobe.report.terminal import layer_table

    skipped, assumed = result.provenance.skipped, result.model.get("assumed", ())
    if as_json:
        document = {
            "out": str(out),
            "name": result.name,
            "images": result.provenance.images,
            "skipped": list(skipped),
            "assumed": list(assumed),
            "precision": result.provenance.precision,
            "deviation": result.provenance.deviation,
            "kernel": result.provenance.kernel,
            "processes": result.provenance.processes,
            "layer_means": records(result.tables["layer_means"]),
        }
        put_json(document)
    else:
        screen = console()
        screen.print(layer_table(result, screen.width))
    if result.provenance.deviation:
        worst = max(result.provenance.deviation.items(), key=lambda pair: pair[1])
        say(
            f"{result.provenance.precision} passes: on the first images no value was further from "
            f"fp32 than {worst[1]:.1%} ({worst[0]})"
        )
    for line in assumed:
        say(f"assumed: {line}")
    for line in skipped[:5]:
        say(f"skipped {line}")
    if skipped:
        say(f"{len(skipped)} images could not be read; they are listed in {out / 'log.txt'}")
    say(f"wrote {out}; open {out / 'report.html'}")
