"""Several checkpoints: each one loaded, measured unless it is already, and saved at once."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprobe.cli import _together
from attnprobe.cli._console import progress, say
from attnprobe.cli._run import command_line, kept, log, settings
from attnprobe.errors import OutputError

if TYPE_CHECKING:
    from attnprobe.checkpoints import LoadedModel
    from attnprobe.processes import World
    from attnprobe.results import Result
    from attnprobe.results.runs import Kept, Runs
    from attnprobe.settings import AnalysisConfig


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        sources: Checkpoints and folders of saved runs.
        images: Where the images are.
        measuring: Values of the options that say how to measure, by name.
        loading: How the checkpoints are loaded, by name of the option.
        names: Labels of the sources, or none to take their own.
        place: Where the runs are saved.
        resume: Whether a measurement that was interrupted is taken up again.
    """

    sources: Sequence[str]
    images: str
    measuring: dict[str, Any]
    loading: dict[str, Any]
    names: Sequence[str] = ()
    place: Path = Path()
    resume: bool = False

    @cached_property
    def world(self) -> "World":
        """The processes that measure."""
        return _together.world()

    def state(self, sha256: str) -> Path:
        """Where an unfinished measurement is kept."""
        return _together.states_of(self.place) / sha256[:12]

    def name(self, at: int) -> str | None:
        """Label of a source, if it was given one."""
        return self.names[at] if self.names else None

    @cached_property
    def config(self) -> "AnalysisConfig":
        """The settings of every measurement."""
        return settings(dict(self.measuring))

    @cached_property
    def images_sha256(self) -> str:
        """Hash of the images, read once to know whether finished runs saw the same."""
        from attnprobe.datasets import open_set
        from attnprobe.types import CheckpointSpec

        config, spec = self.config, CheckpointSpec("any", "any")
        source = open_set(self.images, spec=spec, limit=config.limit, split=config.split)
        with progress("reading the images") as update:
            done = 0
            for batch in source.batches(32, workers=max(0, self.config.workers)):
                done += len(batch.ids)
                update(done, source.count)
        return source.sha256

    def expected(self, images: int) -> dict[str, Any]:
        """Return the settings that a run on so many images must have to be kept."""
        from attnprobe.settings import without_cka_of_few

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = without_cka_of_few(self.config, images)
        return {**config.flat(), **kept(self.loading)}


def measured(plan: Plan, runs: "Runs") -> Iterator["Result"]:
    """Yield one result a checkpoint; each is saved before it is yielded. In the main process."""
    count = len(plan.sources)
    for at in range(count):
        result, words = _one(plan, runs, at)
        say(f"{at + 1} of {count}: {result.name} {words}")
        yield result


def helped(plan: Plan) -> bool:
    """Do the part of a process that is not the main one; False in the main one."""
    if plan.world.main:
        return False
    for at, source in enumerate(plan.sources):
        if not is_run(source):
            model = _load(plan, at)
            if plan.world.shared(None):
                _measure(plan, at, model)
    return True


def left(runs: "Runs", plan: Plan, place: Path) -> str:
    """Say what an interruption leaves, and how to go on; nothing where it leaves nothing."""
    part = _together.unfinished(place)
    if not runs.done:
        return f"what was measured is kept; {_together.GO_ON}" if part else ""
    return (
        f"{len(runs.done)} of {len(plan.sources)} checkpoints are finished and kept in {place}"
        f"{', and a part of another' if part else ''}; {_together.GO_ON}"
    )


def log_lines(result: "Result") -> list[str]:
    """Return what a log of several runs says under one of them."""
    assumed = [f"  assumed: {line}" for line in result.model.get("assumed", ())]
    return assumed + [f"  skipped {line}" for line in result.provenance.skipped]


def target(place: Path, kind: str, *, overwrite: bool, resume: bool) -> Path:
    """Return where to write, or refuse it before the work.

    Args:
        place: What the user asked for.
        kind: What is to be written: a track or a comparison.
        overwrite: Replace an older one.
        resume: Keep the finished runs of an older one.
    """
    from attnprobe.results import check_output
    from attnprobe.results.manifest import kind_of

    if overwrite and resume:
        raise click.UsageError("--resume keeps what --overwrite replaces; give one of them")
    there = kind_of(place) == kind
    if there and not (resume or overwrite):
        raise OutputError(
            f"{place} already holds a {kind}",
            "pass --resume to keep its finished runs, --overwrite, or choose another --out",
        )
    if resume and place.is_dir() and any(place.iterdir()) and not there:
        raise OutputError(f"{place} holds no {kind} to resume", "choose another --out")
    return check_output(place, overwrite=overwrite or resume)


def is_run(source: str) -> bool:
    """Whether a folder with a manifest is meant, rather than a checkpoint."""
    return os.path.isfile(os.path.join(source, "manifest.json"))  # noqa: PTH113, PTH118 - never raise


def _one(plan: Plan, runs: "Runs", at: int) -> tuple["Result", str]:
    """Return the result of one source and where it comes from, in words."""
    import attnprobe

    source, name = plan.sources[at], plan.name(at)
    if is_run(source):
        result = attnprobe.Result.load(source)
        result = replace(result, name=name or result.name)
        kept = runs.take(result.provenance.weights_sha256)
        runs.save(result, {"log.txt": log(result)}, over=kept)
        return result, "was measured before"
    model = _load(plan, at)
    kept = runs.take(model.spec.sha256)
    apart = _differs(plan, kept, model) if kept else ""
    wanted = plan.world.shared(kept is None or bool(apart))
    if kept and not wanted:
        result = runs.reuse(kept)
        name = plan.config.label(model.spec.name)
        return replace(result, name=name), f"is finished; kept {kept.name}"
    result = _measure(plan, at, model, runs, kept)
    again = f"measured again (changed: {apart})" if apart else "measured"
    return result, f"{again} in {result.provenance.seconds:.1f} s"


def _load(plan: Plan, at: int) -> "LoadedModel":
    import attnprobe

    return attnprobe.load(plan.sources[at], name=plan.name(at), **plan.loading)


def _measure(
    plan: Plan,
    at: int,
    model: "LoadedModel",
    runs: "Runs | None" = None,
    over: "Kept | None" = None,
) -> Any:
    """Measure a checkpoint and save it as a run; returns the result, in the main process."""
    state = plan.state(model.spec.sha256)
    result = _together.measure(
        model,
        plan.images,
        plan.config,
        plan.world,
        state=state,
        resume=plan.resume,
        label=f"{at + 1} of {len(plan.sources)}: measuring {model.spec.name}",
        command=command_line(),
    )
    if result is not None and runs is not None:
        facts = {"checkpoint": plan.sources[at], "images": plan.images}
        result = replace(result, config={**facts, **kept(plan.loading), **result.config})
        runs.save(result, {"log.txt": log(result)}, over=over)
    _together.saved(plan.world, state)
    return result


def _differs(plan: Plan, kept: "Kept", model: "LoadedModel") -> str:
    """Return in what a finished run differs from the one that is wanted, or nothing."""
    apart = kept.differs(plan.expected(kept.candidates))
    asked = kept.manifest["model"].get("asked", {})
    if asked.get("plugins") != model.spec.asked.get("plugins"):
        apart = apart or "plugins"
    return apart or ("" if kept.images_sha256 == plan.images_sha256 else "images")
