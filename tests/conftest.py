"""Photographs and a checkpoint file small enough to measure in a second."""

import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch starts: the workers are the parallelism
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import timm
import torch
from hypothesis import settings
from PIL import Image

from attnprobe.cli import main

# the same examples at every run where nobody watches; fresh ones at a desk
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def accelerate_forgets():
    """What one test told accelerate must not reach the next one in its process."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def command(capsys):
    """Run the command in this process and return what it printed."""

    def ran(*arguments, status=0):
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert done.value.code == status, printed.err
        return printed

    return ran


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(9):
        Image.effect_noise((200, 180), 60).convert("RGB").save(folder / f"{index}.jpg")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=64, depth=2, num_classes=0
    )
    torch.save({"model": model.state_dict(), "epoch": 3}, path)
    return path
