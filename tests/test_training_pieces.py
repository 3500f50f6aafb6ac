"""Parts of the engine: schedules against formulas, the journal, progress, states, signals."""

import json
import math
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnprobe.errors import AttnprobeError, OutputError
from attnprobe.options import option
from attnprobe.training import outputs, schedules, states
from attnprobe.training.config import configure
from attnprobe.training.journal import Journal
from attnprobe.training.progress import WINDOW, Progress
from attnprobe.training.stopping import on_signals


def config_of(**values):
    from dataclasses import make_dataclass

    own = make_dataclass("Own", [("ratio", float, option(0.5, "Share."))], frozen=True)
    return configure("simmim", own, values)


def rates(config, *, steps, steps_per_epoch):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.param_groups[0]["lr"] = schedules.learning_rate(config, config.optimizer.lr)
    schedule = schedules.schedule_of(
        optimizer, config, steps=steps, steps_per_epoch=steps_per_epoch
    )
    found = []
    for step in range(steps):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@given(
    epochs=st.integers(2, 6),
    per_epoch=st.integers(1, 9),
    warmup=st.integers(0, 2),
    lr=st.floats(1e-5, 1.0),
    batch=st.sampled_from([64, 512, 4096]),
)
def test_cosine_after_warm_up_is_half_a_cosine_of_what_is_left(
    epochs, per_epoch, warmup, lr, batch
):
    config = config_of(
        epochs=epochs, warmup_epochs=warmup, lr=lr, lr_batch=256, batch_size=batch, min_lr=lr / 50
    )
    steps, top, low = epochs * per_epoch, lr * batch / 256, lr / 50 * batch / 256
    begin = min(warmup * per_epoch, steps - 1)
    for step, rate in enumerate(rates(config, steps=steps, steps_per_epoch=per_epoch)):
        if step < begin:  # MAE, util/lr_sched.py: linear from zero
            expected = top * step / begin
        else:
            part = (step - begin) / (steps - begin)
            expected = low + (top - low) * 0.5 * (1 + math.cos(math.pi * part))
        assert rate == pytest.approx(expected, rel=1e-9)


def test_cosine_with_the_warm_up_inside_counts_from_the_start():
    config = config_of(
        epochs=10,
        warmup_epochs=2,
        lr=2e-4,
        lr_batch=512,
        batch_size=2048,
        warmup_lr=1e-6,
        min_lr=1e-5,
        warmup_prefix=False,
    )
    found = rates(config, steps=100, steps_per_epoch=10)
    assert found[0] == pytest.approx(4e-6)
    assert found[10] == pytest.approx(4e-6 + (8e-4 - 4e-6) / 2)
    assert found[50] == pytest.approx(4e-5 + (8e-4 - 4e-5) / 2)


def test_multistep_falls_where_told():
    config = config_of(
        epochs=10,
        warmup_epochs=1,
        lr=1e-4,
        lr_batch=512,
        batch_size=512,
        sched="multistep",
        decay_epochs=[7.0],
        decay_rate=0.1,
        warmup_prefix=False,
    )
    found = rates(config, steps=40, steps_per_epoch=4)
    assert found[4:28] == [pytest.approx(1e-4)] * 24
    assert found[28:] == [pytest.approx(1e-5)] * 12


def test_constant_stays():
    config = config_of(epochs=4, warmup_epochs=1, lr=0.5, lr_batch=128, sched="constant")
    assert rates(config, steps=8, steps_per_epoch=2)[2:] == [0.5] * 6


def test_decay_spares_what_the_module_names_unless_told_otherwise():
    class Module(nn.Linear):
        def no_weight_decay(self):
            return {"weight"}

    config = config_of(weight_decay=0.3)
    spared = schedules.optimizer_of(Module(2, 2), config, decay_biases=False)
    assert {group["weight_decay"] for group in spared.param_groups} == {0.0}
    decayed = schedules.optimizer_of(Module(2, 2), config, decay_biases=True)
    assert {group["weight_decay"] for group in decayed.param_groups} == {0.3}


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lars", "lion"])
def test_timms_optimisers_step(name):
    module = nn.Linear(2, 1)
    before = module.weight.detach().clone()
    optimizer = schedules.optimizer_of(module, config_of(opt=name, lr=0.1), decay_biases=False)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(module.weight, before)


def test_an_unknown_optimiser_is_named():
    with pytest.raises(AttnprobeError, match="no optimiser 'adamm'"):
        schedules.optimizer_of(nn.Linear(1, 1), config_of(opt="adamm"), decay_biases=False)


def test_the_journal_goes_back_to_a_step_and_drops_a_cut_line(tmp_path):
    journal = Journal(tmp_path)
    for step in (2, 4, 6):
        journal.add("train", step, step / 4, {"loss": 1.0 / step, "lr": math.nan})
    with journal.path.open("a") as file:
        file.write('{"kind": "train", "ste')
    journal.rewind(4)
    assert [row["step"] for row in journal.rows()] == [2, 4]
    assert journal.rows()[0] == {"kind": "train", "step": 2, "epoch": 0.5, "loss": 0.5, "lr": None}


def test_rewinding_nothing_is_nothing(tmp_path):
    Journal(tmp_path).rewind(3)
    assert Journal(tmp_path).rows() == []


@given(
    losses=st.lists(st.floats(0, 10, width=32), min_size=1, max_size=3 * WINDOW),
    cut=st.integers(0, 3 * WINDOW),
)
def test_progress_saved_in_the_middle_goes_on_the_same(losses, cut):
    def feed(progress, values):
        for loss in values:
            progress.step += 1
            progress.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(2 * loss)})
            if progress.step % 3 == 0:
                progress.unseen()
            if progress.step % 7 == 0:
                progress.close()
        return progress

    whole = feed(Progress(), losses)
    first = feed(Progress(), losses[:cut])
    second = Progress()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    feed(second, losses[cut:])
    assert second.state_dict() == whole.state_dict()


def test_a_loss_that_runs_away_is_seen_and_a_falling_one_is_not():
    def fed(values):
        progress = Progress()
        for value in values:
            progress.add({"loss": torch.tensor(value)})
        progress.unseen()
        return progress

    early = [1.0] * WINDOW
    progress = fed(early)
    for value in [2.5] * WINDOW:
        progress.add({"loss": torch.tensor(value)})
    progress.unseen()
    assert progress.diverging()
    assert not fed(early).diverging()
    assert not fed([5.0] * 3).diverging()


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    outputs.put(path, b"one")

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        outputs.put(path, b"two")
    assert path.read_bytes() == b"one"
    assert [item.name for item in tmp_path.iterdir()] == ["a.bin"]


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(states.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(OutputError, match=r"needs 1\.06 GiB of disk; .* has 0\.00 GiB free"):
        states.check_room(tmp_path, needed=2**30, what="this run")


def test_only_whole_states_count(tmp_path):
    for name in ("step-00000004", "step-00000012", ".step-00000016.part", "step-x", "other"):
        (tmp_path / states.FOLDER / name).mkdir(parents=True)
    assert states.steps(tmp_path) == [4, 12]
    states.clean(tmp_path)
    assert not (tmp_path / states.FOLDER / ".step-00000016.part").exists()


def test_the_first_signal_asks_and_a_second_ctrl_c_does_not_wait():
    before = signal.getsignal(signal.SIGINT)  # ignored where a shell started this in the background
    with on_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_that_already_told_accelerate_another_precision_is_told_so(tmp_path):
    from accelerate import Accelerator

    from attnprobe.training.machine import accelerator_of

    Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(AttnprobeError, match="already uses accelerate"):
        accelerator_of(config_of(precision="fp32", device="cpu"), tmp_path)
