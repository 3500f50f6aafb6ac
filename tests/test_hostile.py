"""Contents made to hang, flood or crash the reader: one short error each, in bounded time."""

import json
import struct
import zipfile

import pytest
import torch
from random_modules import random_vit
from safetensors.torch import save_file

from attnprobe.checkpoints import load
from attnprobe.errors import CheckpointError, FormatError, PartialLoadError

ODD_SHAPES = {
    "no_pixels": {"patch_embed.proj.weight": torch.zeros(64, 3, 0, 0)},
    "no_axes": {"blocks.0.mlp.fc1.weight": torch.tensor(0.0)},
}


def small_state():
    module = random_vit(img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=1)
    return dict(module.state_dict())


def saved(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def archived(tmp_path, code):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
    return tmp_path / "a.pth"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def test_mappings_that_hold_each_other_exponentially_often_are_refused(tmp_path):
    content = {}
    for _ in range(40):
        content = dict.fromkeys("abcdefgh", content)
    with pytest.raises(FormatError, match="without end"):
        load(saved(tmp_path, content))


def test_a_pickle_cannot_replace_the_methods_of_a_mapping(tmp_path):
    names = b"".join(text(name) + b"K\x01" for name in ("items", "values", "keys", "get"))
    code = b"\x80\x02ccollections\nOrderedDict\n)R}(" + names + b"ub."
    with pytest.raises(FormatError, match="no named tensors"):
        load(archived(tmp_path, code))


@pytest.mark.parametrize("index", [10**12, 10**8, 500])
def test_a_block_index_beyond_the_file_is_refused_before_it_is_built(tmp_path, index):
    state = small_state() | {f"blocks.{index}.norm1.weight": torch.ones(64)}
    with pytest.raises(PartialLoadError, match=str(index)):
        load(saved(tmp_path, state))


@pytest.mark.parametrize("kind", ODD_SHAPES)
def test_shapes_that_no_model_has_are_refused(tmp_path, kind):
    with pytest.raises(PartialLoadError, match="make no transformer"):
        load(saved(tmp_path, small_state() | ODD_SHAPES[kind]))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: (tensor * 10).to(torch.int8),
        lambda tensor: tensor > 0,
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to_sparse(),
    ],
)
def test_weights_that_are_no_dense_floats_are_refused(tmp_path, change):
    state = small_state()
    state["blocks.1.mlp.fc1.weight"] = change(state["blocks.1.mlp.fc1.weight"])
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.fc1\.weight \("):
        load(saved(tmp_path, state))


@pytest.mark.parametrize("name", ["x" * 100_000, "\x1b[31mred", "two\nlines", "\u202eright"])
def test_tensor_names_that_steer_a_terminal_are_refused_without_printing_them(tmp_path, name):
    with pytest.raises(FormatError, match="tensor name") as caught:
        load(saved(tmp_path, small_state() | {f"blocks.0.{name}": torch.ones(1)}))
    assert name not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "x" * 301])
def test_a_name_in_the_metadata_that_steers_a_terminal_is_refused(tmp_path, name):
    path = tmp_path / "a.safetensors"
    save_file(small_state(), path, metadata={"attnprobe": json.dumps({"name": name})})
    with pytest.raises(CheckpointError, match="name") as caught:
        load(path)
    assert name not in str(caught.value)


def test_a_path_that_the_system_refuses_is_an_error_of_the_checkpoint():
    with pytest.raises(CheckpointError, match="cannot open"):
        load("x" * 5000)
