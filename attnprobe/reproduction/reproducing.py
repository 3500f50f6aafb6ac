"""The whole study by one call: plan, estimate, run, collect, page."""

import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from attnprobe.datasets import open_pictures
from attnprobe.errors import AttnprobeError, OutputError
from attnprobe.objectives import load as load_objective
from attnprobe.reproduction import budgets, estimate, growing, running, scores
from attnprobe.reproduction.steps import Step, steps
from attnprobe.reproduction.study import FILE, Study, finetuning_config, training_config
from attnprobe.study import settings
from attnprobe.training.config import configure
from attnprobe.training.outputs import put

SCORES, TIMINGS = "scores.csv", "timings.csv"
Say = Callable[[str], None]


def planned(data: str, val: str, out: Path, budget: budgets.Budget) -> Study:
    """Return the study of these images.

    Raises:
        AttnprobeError: They cannot be used or have no labels, or the budget trains what
            training does not take.
    """
    train, held_out = open_pictures(data), open_pictures(val, split="val")
    for pictures in (train, held_out):
        if pictures.labels is None:
            raise AttnprobeError(
                f"{pictures.label} has no labels, which supervised training needs",
                "give a folder with one sub-folder a class, or a labelled set",
            )
    if len(held_out) < budget.images:
        budget = replace(budget, images=len(held_out))
    study = Study(out, budget, data, val, len(train), len(held_out))
    _check(study)
    return study


def _check(study: Study) -> None:
    """Refuse now what reading the study, or one of its trainings, would refuse later."""
    try:
        settings.check(tomllib.loads(study.text()))
    except (ValueError, TypeError) as error:
        raise AttnprobeError(str(error), "give smaller numbers, or another budget") from error
    if not study.runs():
        raise AttnprobeError("a study of no training", "give some method a seed")
    supervised = load_objective("supervised").config
    configure("supervised", supervised, study.budget.training)
    depth = study.budget.training["model"]["model_args"].get("depth")
    if type(depth) is not int or depth < 1:
        raise AttnprobeError(f"depth cannot be {depth!r:.40}", "give model_args a number of blocks")
    for method, seed in study.runs():
        tables = tomllib.loads(training_config(study, method, seed, workers=0))
        configure(method, load_objective(method).config, tables)
    for which in study.finetunings():
        tables = tomllib.loads(finetuning_config(study, *which, workers=0))
        configure("supervised", supervised, tables)
        trained = tomllib.loads(training_config(study, *which[:2], workers=0))
        if _shape(tables["model"]) != _shape(trained["model"]):
            raise AttnprobeError(
                f"{which[0]} is fine-tuned as another model than it is trained",
                "let [training.model] say for all what the model is",
            )


def _shape(section: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the weights of an encoder; what is pooled of it does not."""
    told = {name: section.get(name) for name in ("model", "img_size", "patch_size", "window_size")}
    return told | {k: v for k, v in section["model_args"].items() if k != "global_pool"}


def under_way(out: Path) -> dict[str, Any] | None:
    """Return the settings of the study in a folder, or None where there is none.

    Raises:
        ResultError: Its study.toml is damaged.
    """
    path = out / FILE
    return settings.read(path) if path.exists() else None


def claim(study: Study, *, resume: bool) -> None:
    """Make the folder, or check that it is this study's; it may have had fewer methods or seeds.

    Raises:
        OutputError: It holds something else, or another study.
        ResultError: Its study.toml is damaged.
    """
    path = study.out / FILE
    known = path.exists()
    if known and not resume:
        raise OutputError(
            f"{study.out} already holds a study", "go on with --resume, or choose another --out"
        )
    other = growing.change(settings.read(path), tomllib.loads(study.text())) if known else ""
    if other:
        raise OutputError(
            f"{path} was made with other images or another budget: {other}",
            "repeat the command as it was, or choose another --out",
        )
    if not known and study.out.is_dir() and any(study.out.iterdir()):
        raise OutputError(f"{study.out} is not empty and holds no study", "choose another --out")
    put(path, study.text().encode())


def reproduce(
    study: Study, *, jobs: int, workers: int, resume: bool = False, say: Say = lambda text: None
) -> dict[str, Any]:
    """Run every step that is not done and write the accuracies.

    Args:
        study: What to do.
        jobs: Steps at a time.
        workers: Decoding processes of each training.
        resume: Go on with the study in its folder.
        say: Called with a sentence now and then.

    Returns:
        Where the study lies, its steps, and the seconds of those that ran.

    Raises:
        AttnprobeError: A step failed.
    """
    claim(study, resume=resume)
    everything = steps(study, workers=workers)
    began, before = time.monotonic(), sum(step.done for step in everything)
    say(f"{len(everything)} steps, {before} of them done, {jobs} at a time")

    def told(step: Step, progress: running.Progress) -> None:
        done, here = len(progress.done), len(progress.done) - before
        left = (time.monotonic() - began) / here * (len(everything) - done)
        took = progress.seconds[step.name]
        say(f"{done}/{len(everything)}  {step.name}: {took:.0f} s; about {left / 60:.0f} min left")
        _collect(study, progress)

    progress = running.run(everything, study.out / "logs", jobs=jobs, told=told)
    _collect(study, progress)
    return {"out": str(study.out), "steps": len(everything), "seconds": progress.seconds}


def _collect(study: Study, progress: running.Progress) -> None:
    """Write scores and timings as they stand."""
    put(study.out / SCORES, scores.collect(study, images=study.tested).to_csv(index=False).encode())
    path = study.out / TIMINGS
    rows = dict(pd.read_csv(path).itertuples(index=False, name=None)) if path.exists() else {}
    rows |= {name: round(took, 1) for name, took in progress.seconds.items()}
    frame = pd.DataFrame(list(rows.items()), columns=["step", "seconds"])
    put(path, frame.to_csv(index=False).encode())


def estimated(study: Study, *, jobs: int, threads: int = 0) -> list[str]:
    """Return what each kind of step takes on this machine, and all of them, as lines.

    Args:
        study: The study.
        jobs: Steps at a time.
        threads: Processor threads of each; those that torch takes if 0.
    """
    each = estimate.seconds(study, threads=threads)
    lines = [f"{name}: about {took:.0f} s alone" for name, took in each.items()]
    total = estimate.total(study, each)
    least = max(total / jobs, max(each.values()))
    return [
        *lines,
        f"all steps: {total / 60:.0f} min one after another, {least / 60:.0f} min at the least "
        f"with {jobs} at a time",
    ]
