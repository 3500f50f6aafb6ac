"""The check of one model: it passes what is right, and catches each kind of wrong reader."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from random_modules import randomised

from attnprobe import conformance
from attnprobe.attention import SDPA, WINDOW, RawAttention, Reader
from attnprobe.checkpoints import load

NAMES = {
    "reports": "every attention module reports",
    "own": "captured probabilities are the model's own",
    "pass": "a pass through the model",
    "output": "watching leaves the output as it is",
    "finite": "outputs and features are finite",
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    module = randomised(timm.create_model("test_vit", num_classes=0))
    path = tmp_path_factory.mktemp("vit") / "a.pth"
    torch.save(module.state_dict(), path)
    return load(path, heads=2)


def outcome(loaded, **changes):
    found = conformance.checks(replace(loaded, **changes), "cpu")
    return {check.name: check.passed for check in found}


def wrong(read):
    """A reader of timm's ViT whose reading is put through `read`."""
    return (replace(SDPA, name="wrong", read=lambda *args: read(SDPA.read(*args))),)


def test_a_right_model_passes(vit):
    found = conformance.checks(vit, "cpu")
    assert all(check.passed for check in found)
    assert {check.name for check in found} >= {NAMES["reports"], NAMES["own"], NAMES["output"]}


def test_windows_pass():
    module = load("timm:swin_tiny_patch4_window7_224?pretrained=0")
    assert all(outcome(module).values())


@pytest.mark.parametrize(
    "read",
    [
        lambda raw: raw._replace(scale=2 * raw.scale),
        lambda raw: raw._replace(k=raw.k.flip(1)),
        lambda raw: raw._replace(q=raw.q + 0.1),
    ],
    ids=["scale", "heads swapped", "queries"],
)
def test_probabilities_that_are_not_the_models_are_caught(vit, read):
    assert not outcome(vit, readers=wrong(read))[NAMES["own"]]


def test_a_reader_that_fails_is_caught(vit):
    def fail(raw):
        raise KeyError("q")

    assert not outcome(vit, readers=wrong(fail))[NAMES["pass"]]


def test_a_silent_layer_is_caught(vit):
    silent = replace(SDPA, name="silent", watch=lambda *_: False)
    assert not outcome(vit, readers=(silent,))[NAMES["reports"]]


def test_an_output_that_is_not_the_same_twice_is_caught(tmp_path):
    torch.save(randomised(timm.create_model("test_vit")).state_dict(), tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth")
    loaded.module.norm.register_forward_hook(lambda *args: args[2] + torch.rand(()))
    assert not outcome(loaded)[NAMES["output"]]


def test_outputs_that_are_not_finite_are_caught(vit, tmp_path):
    module = randomised(timm.create_model("test_vit", num_classes=0))
    torch.save(module.state_dict(), tmp_path / "b.pth")
    loaded = load(tmp_path / "b.pth")
    with torch.no_grad():
        loaded.module.norm.weight = torch.nn.Parameter(torch.full((64,), float("inf")))
    assert not outcome(loaded)[NAMES["finite"]]


def test_the_command_exits_by_the_outcome(vit, tmp_path, command):
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "from dataclasses import replace\nfrom attnprobe.attention import SDPA\n"
        "def read(*a):\n    raw = SDPA.read(*a)\n    return raw._replace(scale=2 * raw.scale)\n"
        "READER = replace(SDPA, read=read)\n"
    )
    path = vit.spec.source
    good = command("doctor", "--model", path, "--heads", 2, "--json")
    assert all(check["passed"] for check in json.loads(good.out))
    bad = command("doctor", "--model", path, "--plugin", plugin, status=1)
    assert "FAILED" in bad.out
    assert "--model" in command("doctor", "--heads", "3", status=2).err


def test_readers_are_public():
    assert isinstance(WINDOW, Reader)
    assert RawAttention._fields == ("q", "k", "scale", "bias")
