"""How long a study will take on this machine: a few updates of every method are timed."""

import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attnprobe.objectives import load as load_objective
from attnprobe.options import default_of, described
from attnprobe.reproduction.study import Study, training_config
from attnprobe.training.assembly import assemble
from attnprobe.training.backbones import settle
from attnprobe.training.config import configure
from attnprobe.training.engine import micro_batches, update
from attnprobe.training.machine import accelerator_of, release
from attnprobe.training.sections import WatchSection

WARM, TIMED = 1, 2  # updates
EXTRA = 15.0  # seconds of a process beside its updates: start, decoding, pages
FORWARD = 1 / 3  # of an update's time, which goes backward too


def seconds(study: Study, *, threads: int = 0) -> dict[str, float]:
    """Return the seconds of each step's kind, as if it ran alone.

    Args:
        study: The study; its images are read.
        threads: Processor threads of a step; those that torch takes if 0.

    Returns:
        Seconds by name: one training of each method with its evaluation, and `fine-tuning` of
        all blocks.
    """
    with _threads(threads):
        return _seconds(study)


def _seconds(study: Study) -> dict[str, float]:
    batch = study.budget.training["loop"]["batch_size"]
    each = max(study.count // batch, 1)
    methods = [method for method, count in study.budget.seeds.items() if count]
    took = {method: _an_update(study, method) for method in {*methods, "supervised"}}
    watch = study.budget.training.get("watch", {})
    learnt = min(
        watch.get("eval_limit", default_of(described(WatchSection)["eval_limit"])), study.count
    )
    scored = FORWARD * took["supervised"] * (learnt + study.tested) / batch
    found = {
        method: EXTRA + study.budget.epochs[method] * each * took[method] + scored
        for method in methods
    }
    tuned = study.budget.finetune_epochs * each * took["supervised"]
    return found | {"fine-tuning": EXTRA + tuned + scored}


def total(study: Study, each: dict[str, float]) -> float:
    """Return the seconds of all steps one after another."""
    trained = sum(each[method] for method, _ in study.runs())
    depth = study.budget.training["model"]["model_args"]["depth"]
    kept = sum(1 - dropped / depth for _, _, dropped in study.finetunings())
    return trained + kept * each["fine-tuning"] + EXTRA * (len(study.runs()) + 1)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
