"""A study as commands that depend on one another; each leaves a folder with a manifest."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnprobe.reproduction import study as studies
from attnprobe.reproduction.study import Study
from attnprobe.study.folder import holds_runs

ATTNPROBE = (sys.executable, "-m", "attnprobe")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Step:
    """One command of a study.

    Attributes:
        name: What it makes: the folder, relative to the study's.
        command: The command line; it is run in the present folder.
        out: The folder that it makes.
        needs: Names of steps that have to be done before.
        config: Text of the configuration file that `command` names, if it names one.
        runs: How many runs the output has to hold, if it holds several.
    """

    name: str
    command: tuple[str, ...]
    out: Path
    needs: tuple[str, ...] = ()
    config: str = ""
    runs: int = 0

    @property
    def done(self) -> bool:
        """Whether its output is whole."""
        if self.runs:
            return holds_runs(self.out, self.runs)
        try:
            manifest = json.loads((self.out / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(manifest, dict) and manifest.get("status", "finished") == "finished"

    def arguments(self) -> tuple[str, ...]:
        """Return the command line that begins, or goes on after an interruption."""
        going_on = (self.out / MANIFEST).exists() and "--config" in self.command
        return (*self.command, "--resume" if going_on else "--overwrite")


def steps(study: Study, *, workers: int) -> list[Step]:
    """Return every step, in the order in which they are best begun: one seed after another."""
    found: list[Step] = []
    for seed in range(max(study.budget.seeds.values())):
        runs = [run for run in study.runs() if run[1] == seed]
        tuned = [which for which in study.finetunings() if which[1] == seed]
        found += [_training(study, *run, workers) for run in runs]
        found += [_analysis(study, *run) for run in runs]
        found += [_comparison(study, runs)] if seed == 0 and len(runs) > 1 else []
        found += [_finetuning(study, *which, workers=workers) for which in tuned]
    return found


def _training(study: Study, method: str, seed: int, workers: int) -> Step:
    out = study.training(method, seed)
    verb = "train" if method == "supervised" else "pretrain"
    text = studies.training_config(study, method, seed, workers=workers)
    return _configured(study, out, (verb, method), config=text)


def _finetuning(study: Study, method: str, seed: int, dropped: int, *, workers: int) -> Step:
    out = study.finetuning(method, seed, dropped)
    text = studies.finetuning_config(study, method, seed, dropped, workers=workers)
    needs = (_name(study, study.training(method, seed)),)
    return _configured(study, out, ("train", "supervised"), config=text, needs=needs)


def _configured(
    study: Study, out: Path, verb: tuple[str, str], *, config: str, needs: tuple[str, ...] = ()
) -> Step:
    name = _name(study, out)
    path = study.out / "configs" / f"{out.parent.name}-{out.name}.toml"
    command = (*ATTNPROBE, *verb, "--config", str(path), "-o", str(out))
    return Step(name, command, out, needs, config)


def _analysis(study: Study, method: str, seed: int) -> Step:
    out, trained = study.analysis(method, seed), study.training(method, seed)
    command = (
        *(*ATTNPROBE, "analyze", str(trained / "checkpoint.safetensors"), "-i", study.val),
        *(
            "--precision",
            "fp32",
            "--limit",
            str(study.budget.images),
            "--name",
            f"{method}, seed {seed}",
        ),
        *("-o", str(out)),
    )
    return Step(_name(study, out), command, out, (_name(study, trained),))


def _comparison(study: Study, runs: Sequence[tuple[str, int]]) -> Step:
    out, first = study.out / "comparison", [study.analysis(*run) for run in runs]
    command = (*ATTNPROBE, "compare", *map(str, first), "-o", str(out))
    needs = tuple(_name(study, path) for path in first)
    return Step("comparison", command, out, needs, runs=len(first))


def _name(study: Study, out: Path) -> str:
    return out.relative_to(study.out).as_posix()
