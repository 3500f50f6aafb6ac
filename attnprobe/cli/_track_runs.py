"""The runs of `track`: each checkpoint loaded, measured unless it is already, and saved."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attnprobe.cli._console import progress, say
from attnprobe.cli._run import command_line, log, settings

if TYPE_CHECKING:
    from attnprobe.results import Result
    from attnprobe.settings import AnalysisConfig
    from attnprobe.tracking.runs import Kept, Runs


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        sources: Checkpoints and folders of saved runs.
        images: Where the images are.
        measuring: Values of the options that say how to measure, by name.
        heads: Heads, where shapes cannot tell.
        trust: Whether pickled code may run.
    """

    sources: Sequence[str]
    images: str
    measuring: dict[str, Any]
    heads: int | None
    trust: bool

    @cached_property
    def config(self) -> "AnalysisConfig":
        """The settings of every measurement."""
        return settings(dict(self.measuring))

    @cached_property
    def images_sha256(self) -> str:
        """Hash of the images, read once to know whether finished runs saw the same."""
        from attnprobe.images import open_images
        from attnprobe.types import CheckpointSpec

        source = open_images(
            self.images, spec=CheckpointSpec("any", "any"), limit=self.config.limit
        )
        with progress("reading the images") as update:
            done = 0
            for batch in source.batches(32, workers=self.config.workers):
                done += len(batch.ids)
                update(done, source.count)
        return source.sha256

    def expected(self, images: int) -> dict[str, Any]:
        """Return the settings that a run on so many images must have to be kept."""
        from attnprobe.settings import without_cka_of_few

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = without_cka_of_few(self.config, images)
        return {**config.flat(), "heads": self.heads}


def measured(plan: Plan, runs: "Runs") -> list["Result"]:
    """Return one result a checkpoint, without per-image values; each is saved on the way."""
    from attnprobe.tracking import check_alike

    results: list[Result] = []
    for at, source in enumerate(plan.sources, start=1):
        result, words = _one(plan, runs, source, f"{at} of {len(plan.sources)}")
        say(f"{at} of {len(plan.sources)}: {result.name} {words}")
        results.append(replace(result, samples={}, arrays={}))
        check_alike(results[0], result)
    return results


def _one(plan: Plan, runs: "Runs", source: str, count: str) -> tuple["Result", str]:
    """Return the result of one checkpoint and where it comes from, in words."""
    import attnprobe

    if os.path.isfile(os.path.join(source, "manifest.json")):  # noqa: PTH113, PTH118 - never raise
        result = attnprobe.Result.load(source)
        runs.save(
            result, {"log.txt": log(result)}, over=runs.take(result.provenance.weights_sha256)
        )
        return result, "was measured before"
    model = attnprobe.load(source, heads=plan.heads, trust=plan.trust)
    kept = runs.take(model.spec.sha256)
    apart = _differs(plan, kept) if kept else ""
    if kept and not apart:
        return runs.reuse(kept), f"is finished; kept {kept.name}"
    with progress(f"{count}: measuring {model.spec.name}") as update:
        result = attnprobe.analyze(
            model, plan.images, config=plan.config, progress=update, command=command_line()
        )
    facts = {"checkpoint": source, "images": plan.images, "heads": plan.heads}
    result = replace(result, config={**facts, **result.config})
    runs.save(result, {"log.txt": log(result)}, over=kept)
    again = f"measured again (changed: {apart})" if apart else "measured"
    return result, f"{again} in {result.provenance.seconds:.1f} s"


def _differs(plan: Plan, kept: "Kept") -> str:
    """Return in what a finished run differs from the one that is wanted, or nothing."""
    apart = kept.differs(plan.expected(kept.candidates))
    return apart or ("" if kept.images_sha256 == plan.images_sha256 else "images")
