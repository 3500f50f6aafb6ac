"""A training run is read as it was written, under way or damaged, and never half believed."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_training import CONFIG, PER_EPOCH, STEPS, lines, manifest, picture, write_run
from test_house import imports

from attnprobe.errors import ResultError
from attnprobe.traininglog import facts, is_run, load, metrics, pictures


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", probed=(0, 400), sizes={"layers": 1, "images": 8})


def rewrite(path, **changes):
    held = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**held, **changes}))
    return path


def logged(path, rows):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(text, encoding="utf-8")
    return load(path)


def test_a_run_is_read_as_it_was_written(run):
    found = load(run)
    assert is_run(run)
    assert found.name == "simmim vit_tiny"
    assert found.manifest == manifest()
    assert found.config["loop"]["epochs"] == 10
    assert found.config_text == CONFIG
    rows = [row for row in lines() if row["kind"] == "train"]
    assert found.scalars["step"].tolist() == [row["step"] for row in rows]
    assert found.scalars["loss"].tolist() == [row["loss"] for row in rows]
    assert list(found.scalars)[:4] == ["step", "epoch", "loss", "loss_smooth"]
    assert found.evals["knn_top1"].tolist() == pytest.approx([0.24, 0.28, 0.32, 0.36, 0.4])
    assert [epoch for epoch, _ in found.pictures] == [1, 2, 5, 10]
    assert found.pictures[0][1] == picture(1)
    assert found.results.steps == (0, 400)
    assert [result.model["step"] for result in found.results] == [0, 400]
    assert found.results[-1].model["step"] == 400


def test_the_running_mean_is_centred_and_keeps_a_line(run):
    rows = [{"kind": "train", "step": n, "loss": 3.0 - n / 100} for n in range(1, 201)]
    found = logged(run, rows).scalars
    inner = found.iloc[10:-10]
    assert np.allclose(inner["loss_smooth"], inner["loss"])
    assert found["epoch"].tolist() == pytest.approx((found["step"] / PER_EPOCH).tolist())


def test_tables_for_plots_leave_out_what_was_not_logged(run):
    tables = load(run).tables
    assert set(tables["rates"]["quantity"]) == {"lr", "images_per_s", "grad_norm"}
    assert set(tables["scores"]["quantity"]) == {"knn_top1", "linear_top1"}
    bare = logged(run, [{"kind": "train", "step": 1, "loss": 1.0, "lr": None}]).tables
    assert bare["rates"].empty
    assert bare["scores"].empty


def test_a_run_that_has_only_begun_is_read(tmp_path):
    path = write_run(tmp_path / "run", step=0, probed=(), evals=False, epochs=())
    found = load(path)
    assert found.scalars.empty
    assert found.evals.empty
    assert len(found.results) == 0
    assert found.pictures == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cut=st.integers(1, 400))
def test_a_crash_in_the_last_line_costs_that_line_alone(run, cut):
    whole = "".join(json.dumps(row) + "\n" for row in lines())
    (run / "metrics.jsonl").write_text(whole[:-cut])
    rows = [json.loads(line) for line in whole[:-cut].split("\n")[:-1]]
    found = load(run)
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    held = found.scalars["step"].tolist()
    assert held[: len(steps)] == steps
    assert len(held) <= len(steps) + 1  # only the line end was cut


def test_a_resumed_run_says_things_once(run):
    rows = [{"kind": "train", "step": n, "loss": 1.0} for n in (10, 20, 30, 40)]
    rows += [{"kind": "train", "step": n, "loss": 2.0} for n in (20, 30)]
    rows += [{"kind": "eval", "step": 30, "knn_top1": 0.5}]
    rows += [{"kind": "eval", "step": 30, "linear_top1": 0.6}]
    found = logged(run, rows)
    assert found.scalars["step"].tolist() == [10, 20, 30]
    assert found.scalars["loss"].tolist() == [1, 2, 2]
    assert found.evals[["knn_top1", "linear_top1"]].to_numpy().tolist() == [[0.5, 0.6]]


def test_values_that_are_not_finite_are_missing_and_other_kinds_are_left_out(run):
    rows = [
        '{"kind": "train", "step": 1, "loss": NaN}\n',
        '{"kind": "train", "step": 2, "loss": 1e400, "note": "warm", "flag": true}\n',
        '{"kind": "train", "step": 3, "loss": 0.5, "new_thing": 7}\n',
        '{"kind": "of the future", "step": 4}\n',
    ]
    found = logged(run, rows).scalars
    assert found["loss"].isna().tolist() == [True, True, False]
    assert found["new_thing"].tolist()[2] == 7
    assert "note" not in found
    assert "flag" not in found


BROKEN_LINES = {
    "half": '{"kind": "train", "st',
    "list": "[1, 2]",
    "no step": '{"kind": "train", "loss": 1}',
    "odd step": '{"kind": "train", "step": 1.5, "loss": 1}',
    "negative step": '{"kind": "train", "step": -1, "loss": 1}',
    "huge step": '{"kind": "train", "step": 1000000000000000000, "loss": 1}',
    "odd name": '{"kind": "train", "step": 1, "<b>": 1}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_damaged_line_is_named(run, name):
    with pytest.raises(ResultError, match=r"metrics.jsonl is damaged: line 1") as caught:
        logged(run, [BROKEN_LINES[name] + "\n", {"kind": "train", "step": 2, "loss": 1.0}])
    assert caught.value.remedy


def test_a_training_without_a_loss_and_with_too_much_else_is_refused(run):
    with pytest.raises(ResultError, match="has a loss"):
        logged(run, [{"kind": "train", "step": 1, "lr": 1.0}])
    many = {f"q{n}": 1.0 for n in range(metrics.MOST_COLUMNS)}
    with pytest.raises(ResultError, match="quantities"):
        logged(run, [{"kind": "train", "step": 1, "loss": 1.0, **many}])


def test_sizes_are_checked_before_anything_is_read(run, monkeypatch):
    for module, name in (
        (metrics, "LARGEST_FILE"),
        (facts, "LARGEST_FILE"),
        (metrics, "MOST_ROWS"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 20)
            with pytest.raises(ResultError, match="more than 20"):
                load(run)


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl"])
def test_an_absent_part_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(ResultError, match=f"has no {name}"):
        load(run)


def test_other_folders_are_no_runs(tmp_path, run):
    assert not is_run(tmp_path)
    with pytest.raises(ResultError, match="is not the folder of a training run"):
        load(tmp_path)
    with pytest.raises(ResultError, match="is not the folder of a training run"):
        load(run / "probe" / "step-00000000")


DAMAGE = {
    "newer": {"schema": 99},
    "schema": {"schema": "1"},
    "name": {"name": None},
    "steps": {"steps": 0},
    "boolean": {"batch_size": True},
    "infinite": {"seconds": 1e400},
    "negative": {"seconds": -1},
    "status": {"status": "flying"},
    "beyond": {"step": STEPS + 1},
    "model": {"model": []},
    "parameters": {"model": {"parameters": "many"}},
    "skipped": {"skipped": [1]},
    "versions": {"versions": {"torch": 2}},
    "long": {"title": "x" * 20_000},
    "deep": {"model": {"model_args": json.loads("[" * 30 + "]" * 30)}},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_manifest_that_cannot_be_is_refused(run, name):
    with pytest.raises(ResultError) as caught:
        load(rewrite(run, **DAMAGE[name]))
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"kind": "training"}'])
def test_a_manifest_that_is_none_is_refused(run, content):
    (run / "manifest.json").write_bytes(content)
    with pytest.raises(ResultError):
        load(run)


def test_a_damaged_configuration_is_named(run):
    (run / "config.toml").write_text("not = = toml")
    with pytest.raises(ResultError, match=r"config.toml is damaged"):
        load(run)


def test_damaged_and_huge_pictures_are_named(run):
    path = run / "pictures" / "epoch-0002.png"
    whole = path.read_bytes()
    bomb = whole[:16] + struct.pack(">II", 60_000, 60_000) + whole[24:]
    for content, words in ((b"GIF89a", "no PNG"), (whole[:200], "damaged"), (bomb, "60000")):
        path.write_bytes(content)
        with pytest.raises(ResultError, match=words) as caught:
            load(run)
        assert "epoch-0002.png" in caught.value.cause


def test_of_many_pictures_some_are_read(run):
    for epoch in range(1, 40):
        (run / "pictures" / f"epoch-{epoch:04d}.png").write_bytes(picture(1))
    (run / "pictures" / "notes.txt").write_text("not a picture")
    epochs = [epoch for epoch, _ in load(run).pictures]
    assert len(epochs) == pictures.MOST
    assert (epochs[0], epochs[-1]) == (1, 39)
    assert max(np.diff(epochs)) <= 4


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run):
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(ResultError, match="not a regular file"):
        load(run)


def test_probes_are_read_when_they_are_asked_for(run):
    found = load(run)
    (run / "probe" / "step-00000400" / "manifest.json").write_text("{")
    assert len(found.results) == 2
    assert found.results[0].model["step"] == 0
    with pytest.raises(ResultError, match="step-00000400"):
        found.results[1]
    (run / "probe" / "step-00000000").rename(run / "probe" / "step-00000007")
    with pytest.raises(ResultError, match="says that it is of step 0"):
        load(run).results[0]


def test_a_log_is_read_without_torch():
    assert not imports("import attnprobe.traininglog", "torch")
