"""A study: what it plans, what it refuses, and a tiny one from end to end in this process."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from training_runs import npz

from attnprobe import objectives
from attnprobe.cli import main
from attnprobe.comparison import Comparison
from attnprobe.errors import AttnprobeError, OutputError
from attnprobe.reproduction import budgets, reproducing, running
from attnprobe.reproduction.steps import steps
from attnprobe.reproduction.study import Study, finetuning_config, training_config
from attnprobe.results import Result
from attnprobe.study import judging, load, summarise
from attnprobe.training.config import configure

JUDGED = ("local_everywhere-simmim", "knn-mocov3-simmim", "drop-simmim")
SCORES = {"supervised": {"knn", "linear", "own"}}  # of trainings; the others have no classifier


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return npz(folder / "train.npz", 64), npz(folder / "val.npz", 32, seed=1)


def study(out, images, **changes):
    budget = replace(budgets.load("smoke"), **changes)
    return reproducing.planned(*map(str, images), out, budget)


@pytest.mark.parametrize("name", budgets.names())
def test_every_configuration_of_a_budget_is_one_that_training_takes(tmp_path, name):
    plan = Study(tmp_path, budgets.load(name), "train.npz", "val.npz", 50_000)
    models = set()
    for method, seed in plan.runs():
        tables = tomllib.loads(training_config(plan, method, seed, workers=1))
        config = configure(method, objectives.load(method).config, tables)
        assert config.loop.seed == seed
        models.add((config.model.model, config.model.img_size, config.model.patch_size))
        models.add(tuple(sorted(config.model.model_args.items())))
    assert len(models) == 2, "one architecture for all methods"
    for method, seed, dropped in plan.finetunings():
        tables = tomllib.loads(finetuning_config(plan, method, seed, dropped, workers=1))
        config = configure("supervised", objectives.load("supervised").config, tables)
        assert config.model.drop_last == dropped
        averaged = config.model.model_args.get("global_pool") == "avg"
        assert averaged == (method in ("simmim", "mae")), "they train no class token"
        assert config.model.init == str(plan.training(method, seed) / "checkpoint.safetensors")


@pytest.mark.parametrize("name", budgets.names())
def test_steps_need_only_steps_that_there_are(tmp_path, name):
    plan = Study(tmp_path, budgets.load(name), "train.npz", "val.npz", 50_000)
    found = steps(plan, workers=1)
    known = {step.name for step in found}
    assert len(known) == len(found)
    assert all(set(step.needs) <= known for step in found)
    seeds = sum(plan.budget.seeds.values())
    pair = sum(plan.budget.seeds[method] for method in plan.budget.drops)
    extra = pair * (len(plan.budget.dropped) - 1)
    assert len(found) == 3 * seeds + extra + 1  # trained, measured, fine-tuned; compared


def test_more_blocks_than_there_are_are_refused_before_any_training(tmp_path, images):
    with pytest.raises(AttnprobeError, match="3 of 3 blocks cannot be dropped"):
        study(tmp_path / "out", images, dropped=[0, 3])
    assert not (tmp_path / "out").exists()


def test_images_without_labels_are_refused(tmp_path, photos, images):
    with pytest.raises(AttnprobeError, match="no labels"):
        reproducing.planned(str(images[0]), str(photos), tmp_path, budgets.load("smoke"))


def test_an_unknown_budget_lists_the_known_ones():
    with pytest.raises(AttnprobeError, match="cpu, gpu, smoke"):
        budgets.load("huge")


def test_a_folder_belongs_to_one_study(tmp_path, images):
    plan = study(tmp_path / "out", images)
    reproducing.claim(plan, resume=False)
    with pytest.raises(OutputError, match="already holds a study"):
        reproducing.claim(plan, resume=False)
    reproducing.claim(plan, resume=True)
    with pytest.raises(OutputError, match="another budget"):
        reproducing.claim(study(tmp_path / "out", images, finetune_epochs=7), resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(OutputError, match="is not empty"):
        reproducing.claim(study(tmp_path / "mine", images), resume=False)


def in_this_process(everything, logs, *, jobs, told):
    """Stand in for `running.run`: the same commands, one after another, without new processes."""
    del logs, jobs
    progress = running.Progress({step.name for step in everything if step.done})
    for step in everything:
        if step.name in progress.done:
            continue
        assert set(step.needs) <= progress.done
        if step.config:
            path = Path(step.command[step.command.index("--config") + 1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.config)
        with pytest.raises(SystemExit) as ended:
            main(list(step.arguments()[3:]))  # after `python -m attnprobe`
        assert ended.value.code == 0, step.name
        assert step.done
        progress.done.add(step.name)
        progress.seconds[step.name] = 1.0
        told(step, progress)
    return progress


@pytest.mark.slow
def test_a_tiny_study_from_end_to_end(tmp_path, images, monkeypatch):
    monkeypatch.setattr(running, "run", in_this_process)
    monkeypatch.setattr("attnprobe.training.scoring.write_report", lambda *_, **__: None)
    monkeypatch.setattr("attnprobe.cli._run.page", lambda draw: {})
    monkeypatch.setattr("attnprobe.cli._compare.page", lambda draw: {})
    seeds = {"supervised": 2, "simmim": 1, "mae": 1, "mocov3": 1}
    plan = study(tmp_path / "out", images, seeds=seeds, drops=["simmim"])
    found = reproducing.reproduce(plan, jobs=1, workers=0)

    table = pd.read_csv(plan.out / "scores.csv")
    assert table["value"].between(0, 1).all()
    assert set(table["images"]) == {32}
    for method, seed in plan.runs():
        rows = table.query("method == @method and seed == @seed")
        trained = set(rows.query("score != 'finetuned'")["score"])
        assert trained == SCORES.get(method, {"knn", "linear"}), method
        dropped = sorted(rows.query("score == 'finetuned'")["dropped"])
        assert dropped == ([0, 1] if method == "simmim" else [0])
        result = Result.load(plan.analysis(method, seed))
        assert result.provenance.images == plan.budget.images
    assert len(Comparison.load(plan.out / "comparison").results) == 4

    summary = summarise(load(plan.out))
    assert summary.tables["missing"].empty
    assert judging.ABSENT not in set(
        summary.tables["findings"].query("finding in @JUDGED")["verdict"]
    )

    timings = pd.read_csv(plan.out / "timings.csv")
    assert set(timings["step"]) == set(found["seconds"])
    assert len(timings) == found["steps"]
    again = reproducing.reproduce(plan, jobs=1, workers=0, resume=True)
    assert again["seconds"] == {}
    assert pd.read_csv(plan.out / "timings.csv").equals(timings)


def flags(images, out):
    return ("-d", images[0], "--val", images[1], "--budget", "smoke", "-o", out)


def test_a_dry_run_times_a_few_updates_and_writes_nothing(tmp_path, images, command):
    printed = command("reproduce", *flags(images, tmp_path / "out"), "--dry-run")
    for name in (*objectives.names(), "fine-tuning", "all steps"):
        assert f"{name}: " in printed.err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_study_says_how_to_go_on(tmp_path, images, command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", interrupted)
    given = (*flags(images, tmp_path / "out"), "--no-estimate", "--no-page")
    assert "--resume" in command("reproduce", *given, status=130).err
    assert (tmp_path / "out" / "study.toml").exists()
