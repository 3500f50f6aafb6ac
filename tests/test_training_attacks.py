"""What a training meets in the wild: options out of range, damaged folders, failing beginnings."""

import json
import os
from datetime import date
from types import SimpleNamespace

import pytest
import timm
import torch
from training_runs import StopError, config, lines, npz, stop_after, tensors

from attnprobe import locking
from attnprobe.errors import (
    AttnprobeError,
    CheckpointError,
    ImagesError,
    OutputError,
    ResultError,
)
from attnprobe.exports import export
from attnprobe.training import engine, folder, machine, states
from attnprobe.training.config import configure
from attnprobe.training.engine import train
from attnprobe.training.progress import Progress


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "train.npz")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"betas": [0.9]}, "takes 2 betas, got 1"),
        ({"betas": [0.9, 0.99, 0.999]}, "takes 2 betas, got 3"),
        ({"betas": [0.9, 1.0]}, "adamw cannot be built"),
        ({"betas": [-1.0, 0.9]}, "betas is -1.0, below"),
        ({"betas": [0.9, float("nan")]}, "betas is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"layer_decay": -1.0}, "layer_decay is -1.0, below"),
        ({"warmup_epochs": float("inf")}, "warmup_epochs is inf"),
        ({"decay_epochs": [-3.0]}, "decay_epochs is -3.0"),
        ({"mean": [0.5]}, "mean has 1 values for 3 channels"),
        ({"std": [0.2, 0.0, 0.2]}, "divides by 0"),
        ({"seed": 2**64}, "seed is .*, above"),
        ({"drop_path": 2.0}, "drop_path is 2.0, above"),
        ({"ema": 1.5}, "ema is 1.5, above"),
        ({"flip": 2.0}, "flip is 2.0, above"),
        ({"opt": "fusedadam"}, "fusedadam cannot be built"),
        ({"data": os.fsdecode(b"caf\xe9")}, "no valid UTF-8"),
        ({"trackers": ["clearml"]}, "clearml is not installed"),
        ({"img_size": 4}, "cannot train vit_tiny"),
        ({"model_args": {"in_chans": 1}}, "cannot train vit_tiny"),
        ({"model_args": {"patch_drop_rate": 0.5, "depth": 1}}, "cannot train vit_tiny"),
        ({"accumulate": 5}, "cannot be cut"),
        ({"name": "two\nlines"}, "could not be read"),
        ({"name": "n" * 5000}, "could not be read"),
        ({"model_args": {"embed_dim": 32, "pos_embed": date(2020, 1, 1)}}, "timm cannot|not JSON"),
    ],
)
def test_what_cannot_be_trained_is_one_error_and_leaves_nothing(tmp_path, data, values, cause):
    with pytest.raises(AttnprobeError, match=cause) as caught:
        train(config("simmim", data, **values), tmp_path / "run")
    assert caught.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("section", ["mae", "mocov3", "supervised"])
def test_a_first_update_that_fails_leaves_nothing(tmp_path, data, section):
    values = {"mae": {"img_size": 31}, "mocov3": {"batch_size": 1}}.get(
        section, {"batch_size": 11, "mixup": 0.8}
    )
    with pytest.raises(AttnprobeError, match=r"tile|single image|in pairs"):
        train(config(section, data, **values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_warm_up_longer_than_any_run_is_cut(tmp_path, data):
    values = {"warmup_epochs": 1e308, "sched": "multistep", "decay_epochs": [1e308]}
    assert train(config("simmim", data, epochs=1, **values), tmp_path).status == "finished"


@pytest.mark.parametrize(
    "values",
    [
        {"probe_every": 1, "probe_images": "nowhere"},
        {"accumulate": 5},
        {"model_args": {"patch_drop_rate": 0.5}},
    ],
)
def test_overwriting_keeps_the_old_run_until_the_first_update(tmp_path, data, values):
    train(config("simmim", data, epochs=1), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(AttnprobeError):
        train(config("simmim", data, **values), tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == before
    train(config("simmim", data, epochs=1, seed=1), tmp_path / "run", overwrite=True)
    after = contents(tmp_path / "run")
    assert after.keys() == before.keys()
    assert after["checkpoint.safetensors"] != before["checkpoint.safetensors"]


def test_an_interrupt_before_the_first_update_gives_the_old_run_back(tmp_path, data, monkeypatch):
    train(config("simmim", data, epochs=1), tmp_path / "run")
    before = contents(tmp_path / "run")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config("simmim", data), tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("parts", [(1, 2), (2, 3)])
def test_a_run_goes_on_in_other_parts_of_a_batch(tmp_path, data, parts):
    values = {"opt": "sgd", "lr": 0.05, "save_every": 1}
    train(config("simmim", data, **values), tmp_path / "whole")
    first, then = parts
    plan = config("simmim", data, accumulate=first, **values)
    with pytest.raises(StopError):
        train(plan, tmp_path / "cut", listener=stop_after(6))
    assert states.steps(tmp_path / "cut")[-1] == 5
    train(config("simmim", data, accumulate=then, **values), tmp_path / "cut", resume=True)
    one, two = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    found = zip(lines(tmp_path / "whole"), lines(tmp_path / "cut"), strict=True)
    assert all(row["loss"] == pytest.approx(other["loss"], abs=1e-5) for row, other in found)


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\n", b"\0" * 50, b"[1]\n", b"3\n", b"{}\n", b'{"step":"a","kind":1}\n', b"{"],
)
def test_damaged_metrics_do_not_stop_a_run_from_going_on(tmp_path, data, damage):
    plan = config("simmim", data, save_every=2, log_every=1)
    with pytest.raises(StopError):
        train(plan, tmp_path / "run", listener=stop_after(6))
    metrics = tmp_path / "run" / "metrics.jsonl"
    kept = metrics.read_bytes().splitlines(keepends=True)[:2]
    metrics.write_bytes(b"".join(kept) + damage)
    train(plan, tmp_path / "run", resume=True)
    steps = [row["step"] for row in lines(tmp_path / "run") if row["kind"] == "train"]
    assert steps == [1, 2, *range(5, 13)]


@pytest.mark.parametrize("name", ["optimizer.bin", "model.safetensors", "custom_checkpoint_0.pkl"])
def test_an_empty_file_of_a_state_is_refused_by_name(tmp_path, data, name):
    plan = config("simmim", data, save_every=2)
    with pytest.raises(StopError):
        train(plan, tmp_path / "run", listener=stop_after(3))
    (tmp_path / "run" / "states" / "step-00000002" / name).write_bytes(b"")
    with pytest.raises(ResultError, match="step-00000002"):
        train(plan, tmp_path / "run", resume=True)


def test_weights_without_their_states_are_not_trained_over(tmp_path, data):
    plan = config("simmim", data, epochs=1)
    train(plan, tmp_path / "run")
    before = tensors(tmp_path / "run")
    (tmp_path / "run" / "states").rename(tmp_path / "elsewhere")
    with pytest.raises(ResultError, match="none of the states"):
        train(plan, tmp_path / "run", resume=True)
    after = tensors(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_state_that_cannot_be_written_is_said_once(tmp_path, data, monkeypatch):
    import safetensors

    def full(*_, **__):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("accelerate.Accelerator.save_state", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train(config("simmim", data, epochs=1), tmp_path / "run")
    assert states.steps(tmp_path / "run") == []
    assert not list((tmp_path / "run" / "states").iterdir())


def test_unreadable_evaluation_images_do_not_cost_the_run(tmp_path, data):
    broken = npz(tmp_path / "val.npz", broken=tuple(range(48)))
    said = []
    outcome = train(
        config("simmim", data, epochs=1, val=str(broken)), tmp_path / "run", say=said.append
    )
    assert outcome.status == "finished"
    assert states.steps(tmp_path / "run") == [4]
    assert any("no evaluation" in text for text in said)


class Thinning(timm.models.VisionTransformer):
    """A ViT that goes on with half of its tokens, of which nothing tells the places."""

    def forward_features(self, x, **rest):
        x = self._pos_embed(self.patch_embed(x))
        return self.norm(self.blocks[1](self.blocks[0](x)[:, ::2]))


@timm.models.register_model
def vit_thinning(pretrained=False, **arguments):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Thinning(**sizes, num_classes=arguments["num_classes"])


def test_a_backbone_without_readable_attention_is_refused_with_the_remedy(tmp_path, data):
    plain = {"model": "vit_thinning", "img_size": 0, "patch_size": 0, "model_args": {}}
    plan = config("supervised", data, probe_every=1, probe_limit=8, **plain)
    with pytest.raises(AttnprobeError, match="attention probe") as caught:
        train(plan, tmp_path / "run")
    assert "--probe-every 0" in caught.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "x" * 300, "a\0b"])
@pytest.mark.parametrize("resume", [False, True])
def test_places_that_are_no_folder_are_refused(tmp_path, data, place, resume):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError):
        train(config("simmim", data), tmp_path / place, resume=resume)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("place", ["file/official.pth", "x" * 300])
def test_an_export_that_cannot_be_written_is_one_error(tmp_path, data, place):
    train(config("mae", data, epochs=1), tmp_path / "run")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot write"):
        export(tmp_path / "run", tmp_path / place)
    assert (tmp_path / "file").read_text() == "kept"


def test_the_remedy_of_a_diverged_run_can_be_followed(tmp_path, data):
    values = {"warmup_epochs": 0.0, "save_every": 1}
    with pytest.raises(AttnprobeError) as caught:
        train(config("simmim", data, lr=1e30, **values), tmp_path / "run")
    assert "another --out" in caught.value.remedy
    status = json.loads((tmp_path / "run" / "manifest.json").read_text())["status"]
    assert status == "diverged"


def test_each_process_takes_back_its_own_counts_and_others_the_mean():
    ranks = [Progress(rank, 2) for rank in range(2)]
    for rank, progress in enumerate(ranks):
        progress.add({"loss": torch.tensor(1.0 + rank), "grad_norm": torch.tensor(2.0)})
        progress.unseen()
    ranks[0].parts = [progress.part() for progress in ranks]
    state = ranks[0].state_dict()
    for rank, (place, loss) in enumerate([((0, 2), 1.0), ((1, 2), 2.0), ((0, 1), 1.5)]):
        taken = Progress(*place)
        taken.load_state_dict(state)
        assert float(taken.means()["loss"]) == loss, rank
        assert taken.recent == [loss]
        assert (taken.seen, taken.epoch_count) == (1, 1)


def test_losses_of_a_saved_state_join_those_of_another_device():
    progress = Progress()
    progress.losses = [torch.tensor(1.0), torch.tensor(2.0, device="meta")]
    assert progress.means()["loss"].device.type == "meta"


def test_bounds_of_lists_are_those_of_their_items():
    from attnprobe import objectives

    kind = objectives.load("simmim").config
    assert configure("simmim", kind, {"betas": [0, 1]}).optimizer.betas == [0.0, 1.0]
    with pytest.raises(AttnprobeError, match="above"):
        configure("simmim", kind, {"betas": [0.9, 2.0]})


def test_a_second_process_does_not_train_into_the_same_folder(tmp_path, data, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0)

    def second(update):
        for again in (True, False):
            with (
                pytest.raises(OutputError, match="another process trains into"),
                folder.claimed(tmp_path / "run", plan, again=again),
            ):
                raise AssertionError

    plan = config("simmim", data, epochs=1)
    train(plan, tmp_path / "run", listener=second)
    assert not (tmp_path / "run" / folder.LOCK).exists()


def test_resuming_in_another_precision_is_refused(tmp_path, data):
    train(config("simmim", data, epochs=1, precision="auto"), tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "precision": "fp64"}))
    with pytest.raises(OutputError, match="begun in fp64"):
        train(config("simmim", data, epochs=1, precision="auto"), tmp_path / "run", resume=True)


def test_a_set_of_mostly_broken_images_stops_the_run(tmp_path):
    most = npz(tmp_path / "most.npz", broken=tuple(range(30)))
    with pytest.raises(ImagesError, match="could not be read"):
        train(config("simmim", most, epochs=3), tmp_path / "run")


def test_weights_of_different_updates_are_not_exported_together(tmp_path, data):
    plan = config("mae", data, epochs=1, save_every=2)
    train(plan, tmp_path / "run")
    train(config("mae", data, epochs=2, save_every=2), tmp_path / "other")
    other = (tmp_path / "other" / "objective.safetensors").read_bytes()
    (tmp_path / "run" / "objective.safetensors").write_bytes(other)
    with pytest.raises(CheckpointError, match=r"of epochs 1\.0 and 2\.0"):
        export(tmp_path / "run", tmp_path / "x.pth")


def test_processes_that_do_not_know_of_one_another_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AttnprobeError, match="2 processes were started"):
        machine._check_processes(SimpleNamespace(num_processes=1, device=torch.device("cpu")))
