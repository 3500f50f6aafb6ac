"""The engine end to end: learns, resumes to the bit, stops safely, says what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from training_runs import TINY, StopError, config, lines, npz, stop_after, tensors

import attnprobe
from attnprobe.errors import AttnprobeError, OutputError, ResultError
from attnprobe.training import states
from attnprobe.training.engine import train
from attnprobe.training.guard import DivergedError

OBJECTIVES = ("simmim", "mae", "mocov3", "supervised")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "train.npz")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "val.npz", seed=1)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_killed_and_resumed_equals_one_that_was_not(tmp_path, data, held_out, objective):
    values = {"save_every": 2, "val": str(held_out), "eval_every": 1, "drop_path": 0.2}
    values |= {"ema": 0.9, "snapshot_every": 2} if objective == "simmim" else {}
    values |= {"accumulate": 2} if objective == "mae" else {}
    if objective == "supervised":
        values |= {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5}
        values |= {"auto_augment": "rand-m9-mstd0.5-inc1"}
    plan = config(objective, data, **values)
    whole = train(plan, tmp_path / "whole")
    assert whole.status == "finished"
    for step in (3, 6, 9):  # each goes on from the state before
        with pytest.raises(StopError):
            train(plan, tmp_path / "cut", resume=True, listener=stop_after(step))
    train(plan, tmp_path / "cut", resume=True)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
    assert states.steps(tmp_path / "cut") == states.steps(tmp_path / "whole")


def test_a_finished_run_resumed_is_left_as_it_is(tmp_path, data):
    plan = config("simmim", data, epochs=1)
    train(plan, tmp_path / "run")
    before = tensors(tmp_path / "run")
    assert train(plan, tmp_path / "run", resume=True).status == "finished"
    same(before, tensors(tmp_path / "run"))


def test_worker_processes_change_nothing(tmp_path, data):
    for workers in (0, 2):
        train(config("mocov3", data, epochs=1, workers=workers), tmp_path / str(workers))
    same(tensors(tmp_path / "0"), tensors(tmp_path / "2"))


@pytest.mark.parametrize("objective", ["simmim", "mae", "supervised"])
def test_parts_of_a_batch_add_up_to_the_batch(tmp_path, data, objective):
    for parts in (1, 3):
        plan = config(objective, data, epochs=1, accumulate=parts)
        train(plan, tmp_path / str(parts))
    one, three = tensors(tmp_path / "1"), tensors(tmp_path / "3")
    for name in one:
        assert torch.allclose(one[name], three[name], atol=1e-5), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_checkpoint_loads_in_timm_and_in_attnprobe(tmp_path, data, objective, monkeypatch):
    train(config(objective, data, epochs=1), tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    classes = 4 if objective == "supervised" else 0
    arguments = {"img_size": 32, "patch_size": 8, **TINY["model_args"]}
    model = timm.create_model(
        TINY["model"], num_classes=classes, checkpoint_path=str(path), **arguments
    )
    loaded = attnprobe.load(path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.module.state_dict()[name]), name
    assert loaded.spec.input_size == (3, 32, 32)
    assert loaded.spec.mean == pytest.approx((0.485, 0.456, 0.406))
    kinds = {"mocov3": "contrastive", "supervised": "supervised"}
    assert loaded.spec.objective == kinds.get(objective, "mim")
    assert loaded.epoch == 1.0
    card = (tmp_path / "run" / "README.md").read_text()
    assert "train.npz" in card
    block = card.split("```python\n")[1].split("```")[0]
    scope: dict = {}
    monkeypatch.chdir(tmp_path / "run")
    exec(block, scope)
    assert scope["model"].num_classes == classes


@pytest.mark.slow
def test_it_learns_to_tell_the_classes_apart(tmp_path, data, held_out):
    easy = {"val": str(held_out), "crop_min": 0.9, "flip": 0.0, "label_smoothing": 0.0}
    plan = config("supervised", data, epochs=60, lr=0.02, **easy)
    outcome = train(plan, tmp_path / "run")
    assert outcome.scores["top1"] > 0.9
    assert outcome.scores["knn_top1"] > 0.9


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_trains_and_weights_stay_whole(tmp_path, data, precision):
    train(config("simmim", data, epochs=1, precision=precision), tmp_path / "run")
    assert {value.dtype for value in tensors(tmp_path / "run").values()} == {torch.float32}
    found = lines(tmp_path / "run")[-1]["loss"]
    train(config("simmim", data, epochs=1), tmp_path / "full")
    assert found == pytest.approx(lines(tmp_path / "full")[-1]["loss"], rel=0.05)


def test_broken_images_are_replaced_counted_and_named(tmp_path):
    data = npz(tmp_path / "some.npz", broken=(3, 17))
    outcome = train(config("simmim", data, epochs=2), tmp_path / "run")
    assert [name.split("#")[1] for name in outcome.broken] == ["00003", "00017"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert list(outcome.broken) == manifest["skipped"]


def test_a_loss_that_is_no_number_stops_and_keeps_the_batch(tmp_path, data):
    plan = config("simmim", data, lr=1e30, warmup_epochs=0.0, save_every=1)
    with pytest.raises(DivergedError, match=r"the loss of update \d+ is (nan|inf)") as caught:
        train(plan, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "diverged").iterdir()
    held = torch.load(kept, weights_only=True)
    assert f"update {held['update']}" in caught.value.cause
    assert held["image"].shape == (12, 3, 32, 32)
    assert len(held["names"]) == 12
    for step in states.steps(tmp_path / "run"):
        assert step <= held["update"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "diverged"


def test_a_full_disk_loses_nothing(tmp_path, data, monkeypatch):
    plan = config("simmim", data, save_every=2)
    whole = train(plan, tmp_path / "whole")
    real, calls = states.shutil.disk_usage, []

    def usage(path):
        calls.append(path)
        found = real(path)
        return found._replace(free=found.free if len(calls) < 4 else 0)

    monkeypatch.setattr(states.shutil, "disk_usage", usage)
    with pytest.raises(OutputError, match="saving the run needs"):
        train(plan, tmp_path / "cut")
    monkeypatch.undo()
    assert states.steps(tmp_path / "cut") == [2, 4]
    train(plan, tmp_path / "cut", resume=True)
    same(tensors(tmp_path / "cut"), tensors(whole.folder))


def test_a_damaged_state_is_refused_by_name(tmp_path, data):
    plan = config("simmim", data, save_every=2)
    with pytest.raises(StopError):
        train(plan, tmp_path / "run", listener=stop_after(5))
    (tmp_path / "run" / "states" / "step-00000004" / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(ResultError, match="step-00000004"):
        train(plan, tmp_path / "run", resume=True)


def test_resuming_with_other_options_is_refused(tmp_path, data):
    train(config("simmim", data, epochs=1), tmp_path / "run")
    with pytest.raises(OutputError, match=r"lr 0\.01 -> 0\.1"):
        train(config("simmim", data, epochs=1, lr=0.1), tmp_path / "run", resume=True)


def test_resuming_with_other_images_is_refused(tmp_path):
    data = npz(tmp_path / "train.npz")
    train(config("simmim", data, epochs=1), tmp_path / "run")
    npz(data, seed=5)
    with pytest.raises(OutputError, match="is not what"):
        train(config("simmim", data, epochs=1), tmp_path / "run", resume=True)


def test_overwriting_waits_until_the_new_run_can_begin(tmp_path, data):
    train(config("simmim", data, epochs=1), tmp_path / "run")
    before = tensors(tmp_path / "run")
    for values in ({"model": "no_such_vit"}, {"data": "nowhere"}, {"mask_patch": 12}):
        with pytest.raises(AttnprobeError):
            train(config("simmim", data, **values), tmp_path / "run", overwrite=True)
    same(before, tensors(tmp_path / "run"))


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, data):
    plan = config("simmim", data, probe_every=1, probe_images="nowhere")
    with pytest.raises(AttnprobeError, match="nowhere"):
        train(plan, tmp_path / "a" / "b" / "run")
    assert not (tmp_path / "a").exists()


def test_an_old_run_is_not_written_over(tmp_path, data):
    plan = config("simmim", data, epochs=1)
    train(plan, tmp_path / "run")
    with pytest.raises(OutputError, match="--overwrite"):
        train(plan, tmp_path / "run")
    train(plan, tmp_path / "run", overwrite=True)


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"model": "no_such_vit"}, "no model 'no_such_vit'"),
        ({"model": "resnet18", "img_size": 0, "patch_size": 0, "model_args": {}}, "resnet|ResNet"),
        ({"model_args": {"wrong": 1}}, "timm cannot build"),
        ({"data": "nowhere"}, "nowhere does not exist"),
        ({"batch_size": 500}, "fewer than one batch"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"trackers": ["wndb"]}, "unknown tracker 'wndb'"),
        ({"mask_patch": 12}, "12"),
        ({"accumulate": 5}, "accumulate|parts"),
        ({"init": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, data, values, cause):
    with pytest.raises(AttnprobeError, match=cause):
        train(config("simmim", data, **values), tmp_path / "run")


def test_probes_are_kept_and_do_not_change_the_run(tmp_path, data):
    plain = config("simmim", data, epochs=2)
    watched = config("simmim", data, epochs=2, probe_every=3, probe_limit=8)
    train(plain, tmp_path / "plain")
    train(watched, tmp_path / "watched")
    same(tensors(tmp_path / "plain"), tensors(tmp_path / "watched"))
    found = sorted(path.name for path in (tmp_path / "watched" / "probe").iterdir())
    assert found == [f"step-{step:08d}" for step in (0, 3, 6, 8)]
    assert (tmp_path / "watched" / "report.html").exists()


def test_pictures_show_what_is_reconstructed(tmp_path, data):
    from PIL import Image

    train(config("mae", data, epochs=2, pictures_every=1), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert names == ["epoch-0001.png", "epoch-0002.png"]
    with Image.open(tmp_path / "run" / "pictures" / names[0]) as image:
        assert image.size == (3 * (4 * 34 - 2), 3 * (8 * 34 - 2))


def test_fine_tuning_starts_from_a_checkpoint(tmp_path, data):
    train(config("simmim", data, epochs=1), tmp_path / "first")
    start = tmp_path / "first" / "checkpoint.safetensors"
    plan = config("supervised", data, epochs=1, init=str(start), layer_decay=0.65, lr=0.0)
    train(plan, tmp_path / "second")
    one, two = tensors(tmp_path / "first"), tensors(tmp_path / "second")
    name = "checkpoint.safetensors/blocks.0.attn.qkv.weight"
    assert torch.equal(one[name], two[name])


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from training_runs import config
from attnprobe.training.engine import train
plan = config({objective!r}, Path({data!r}), **{values!r})
train(plan, {out!r}, resume=True)
"""


def script(objective, data, out, **values):
    here = str(Path(__file__).parent)
    text = SCRIPT.format(
        tests=here, objective=objective, data=str(data), out=str(out), values=values
    )
    return [sys.executable, "-c", text]


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing(tmp_path, data):
    values = {"save_every": 1, "epochs": 5, "workers": 1}
    train(config("simmim", data, **values), tmp_path / "whole")
    for _ in range(2):
        process = subprocess.Popen(
            script("simmim", data, tmp_path / "cut", **values), start_new_session=True
        )
        seen = len(states.steps(tmp_path / "cut")) and states.steps(tmp_path / "cut")[-1]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            found = states.steps(tmp_path / "cut")
            if found and found[-1] >= seen + 5:
                break
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < states.steps(tmp_path / "cut")[-1] < 20
    train(config("simmim", data, **values), tmp_path / "cut", resume=True)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
