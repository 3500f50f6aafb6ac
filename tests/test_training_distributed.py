"""Two and four processes (gloo on the CPU) compute what one does with the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import config, lines, npz, tensors

from attnprobe.training import states
from attnprobe.training.engine import train

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from training_runs import config
from attnprobe.training.engine import train
plan = config({objective!r}, Path({data!r}), **{values!r})
outcome = train(plan, {out!r}, resume={resume})
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "train.npz")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(count, objective, data, out, *, resume=False, env=None, **values):
    """Run one training in several processes, as torchrun does."""
    text = SCRIPT.format(
        tests=str(Path(__file__).parent),
        objective=objective,
        data=str(data),
        out=str(out),
        values=values,
        resume=resume,
    )
    port, processes = free_port(), []
    for rank in range(count):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        told |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1, **(env or {})}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", text],
                env=os.environ | {key: str(value) for key, value in told.items()},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said[-3000:]


def close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=tolerance, atol=tolerance), (
            name,
            (one[name] - other[name]).abs().max(),
        )


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "count", "lr"), [("simmim", 2, 0.05), ("mocov3", 4, 0.01)])
def test_processes_equal_one_process(tmp_path, data, objective, count, lr):
    # SGD: Adam divides by the root of tiny second moments and magnifies rounding
    values = {"opt": "sgd", "lr": lr, "epochs": 1, "clip_grad": 1.0}
    train(config(objective, data, **values), tmp_path / "one")
    launch(count, objective, data, tmp_path / "many", **values)
    close(tensors(tmp_path / "one"), tensors(tmp_path / "many"))
    for row, other in zip(lines(tmp_path / "one"), lines(tmp_path / "many"), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    manifest = json.loads((tmp_path / "many" / "manifest.json").read_text())
    assert manifest["processes"] == count


@pytest.mark.slow
def test_two_processes_resume_where_one_began(tmp_path, data):
    values = {"opt": "sgd", "lr": 0.05, "epochs": 2, "save_every": 3}
    train(config("simmim", data, **values), tmp_path / "whole")

    class StopError(Exception):
        pass

    def listen(update):
        if update.step == 4:
            raise StopError

    with pytest.raises(StopError):
        train(config("simmim", data, **values), tmp_path / "cut", listener=listen)
    assert states.steps(tmp_path / "cut") == [3]
    launch(2, "simmim", data, tmp_path / "cut", resume=True, **values)
    assert states.steps(tmp_path / "cut") == states.steps(tmp_path / "whole") == [6, 8]
    close(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))


@pytest.mark.slow
def test_sharded_processes_save_a_whole_checkpoint(tmp_path, data):
    values = {"opt": "sgd", "lr": 0.05, "epochs": 1}
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_USE_CPU": "true"}
    train(config("simmim", data, **values), tmp_path / "one")
    launch(2, "simmim", data, tmp_path / "many", env=sharded, **values)
    close(tensors(tmp_path / "one"), tensors(tmp_path / "many"))
