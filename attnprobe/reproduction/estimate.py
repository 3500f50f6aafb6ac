"""How long a study will take on this machine: a few updates of every method are timed."""

import tempfile
import time
import tomllib
from pathlib import Path

from attnprobe.objectives import load as load_objective
from attnprobe.reproduction.study import Study, training_config
from attnprobe.training.assembly import assemble
from attnprobe.training.backbones import settle
from attnprobe.training.config import configure
from attnprobe.training.engine import micro_batches, update
from attnprobe.training.machine import accelerator_of, release

WARM, TIMED = 1, 2  # updates
EXTRA = 15.0  # seconds of a process beside its updates: start, decoding, evaluation


def seconds(study: Study) -> dict[str, float]:
    """Return the seconds of each step's kind, as if it ran alone.

    Args:
        study: The study; its images are read.

    Returns:
        Seconds by name: one training of each method, and `fine-tuning` of all blocks.
    """
    batch = study.budget.training["loop"]["batch_size"]
    each = max(study.count // batch, 1)
    found = {}
    for method, epochs in study.budget.epochs.items():
        if study.budget.seeds.get(method):
            found[method] = EXTRA + epochs * each * _an_update(study, method)
    found["fine-tuning"] = EXTRA + study.budget.finetune_epochs * each * (
        (found["supervised"] - EXTRA) / (study.budget.epochs["supervised"] * each)
        if "supervised" in found
        else _an_update(study, "supervised")
    )
    return found


def total(study: Study, each: dict[str, float]) -> float:
    """Return the seconds of all steps one after another."""
    trained = sum(each[method] for method, _ in study.runs())
    tuned = len(study.finetunings()) * each["fine-tuning"]
    return trained + tuned + EXTRA * (len(study.runs()) + 1)


def _an_update(study: Study, method: str) -> float:
    tables = tomllib.loads(training_config(study, method, 0, workers=0))
    tables["data"]["cache"] = False  # a few images are wanted
    objective = load_objective(method)
    config = settle(configure(method, objective.config, tables))
    with tempfile.TemporaryDirectory() as folder:
        accelerator = accelerator_of(config, Path(folder))
        try:
            run = assemble(config, Path(folder), accelerator)
            mix = run.objective.mix(config.options, run.framing) if run.objective.mix else None
            batches = micro_batches(run, start=0, stop=WARM + TIMED, workers=0)
            run.module.train()
            began = time.perf_counter()
            for step in range(WARM + TIMED):
                if step == WARM:
                    began = time.perf_counter()
                float(update(run, batches, step, mix)["loss"])  # waits for the device
            return (time.perf_counter() - began) / TIMED
        finally:
            release(accelerator)
