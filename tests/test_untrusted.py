"""Files that lie, break or attack: each gives tensors or one clear error, and runs nothing."""

import argparse
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
from random_modules import random_vit
from safetensors.torch import save_file

from attnprobe.checkpoints import load
from attnprobe.checkpoints.reading import weightfiles
from attnprobe.errors import CheckpointError, FormatError


def small_state():
    torch.manual_seed(0)
    module = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0
    )
    return module.state_dict()


class Attack:
    """Pickles as a call of os.system that creates a marker file."""

    def __init__(self, marker):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


class AttackState(dict):
    """Pickles as a call whose result is then called, indexed and given state."""

    def __init__(self, marker):
        super().__init__()
        self.marker = marker

    def __reduce__(self):
        call = f"__import__('os').system('touch {self.marker}')"
        return eval, (call,), {"x": 1}, iter([1]), iter([(1, 2)])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("attack", [Attack, AttackState])
def test_an_attack_beside_tensors_does_not_run(tmp_path, attack, legacy):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    content = {"model": small_state(), "args": attack(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert load(path).spec.format == "timm"
    assert not marker.exists()


def test_the_attack_is_real_and_trust_is_the_only_way_to_run_it(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save({"model": small_state(), "args": Attack(marker)}, path)
    load(path, trust=True)
    assert marker.exists()


def test_an_attack_instead_of_tensors_is_refused(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save(Attack(marker), path)
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load(path)
    assert not marker.exists()


def test_a_bare_pickle_does_not_run(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Attack(marker), protocol=2))
    with pytest.raises(CheckpointError):
        load(path)
    assert not marker.exists()


def test_a_pickle_cannot_alter_functions_of_torch(tmp_path):
    # BUILD on the rebuild function: ("c" name, dict state, "b"), hand-assembled
    code = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError):
        load(path)
    assert not hasattr(torch._utils._rebuild_tensor_v2, "a")


class Shell:
    """A class of the user's own around a module."""

    def __init__(self, module):
        self.ema = module


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["module", "nested", "parallel"])
def test_a_whole_pickled_module_is_read_without_running_its_code(
    tmp_path, monkeypatch, kind, legacy
):
    module = random_vit(img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=1)
    content = {
        "module": module,
        "nested": {"model": module, "epoch": 1},
        "parallel": torch.nn.DataParallel(module),
    }[kind]
    path = tmp_path / "module.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    ran = []
    monkeypatch.setattr(type(module), "__setstate__", lambda *_: ran.append(1), raising=False)
    loaded = load(path)
    assert not ran
    assert any("pickled module without running its code" in note for note in loaded.spec.assumed)
    expected = module.state_dict()
    found = loaded.module.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pickled_module_is_read_with_trust_too(tmp_path):
    module = random_vit(img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=1)
    torch.save({"model": module, "epoch": 1}, tmp_path / "module.pth")
    loaded = load(tmp_path / "module.pth", trust=True)
    assert set(loaded.ledger.matched) == set(module.state_dict())
    assert any("code in the file could run (--trust)" in note for note in loaded.spec.assumed)


def test_an_object_that_is_no_module_is_refused_with_a_remedy(tmp_path):
    torch.save(Shell(torch.nn.Linear(2, 2)), tmp_path / "shell.pth")
    with pytest.raises(CheckpointError, match=r"Shell.*nothing in it was run") as caught:
        load(tmp_path / "shell.pth")
    assert "state_dict()" in caught.value.remedy


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("made", ["script", "trace"])
def test_torchscript_gives_its_parameters_and_runs_nothing(tmp_path, monkeypatch, made):
    module = random_vit(
        img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0
    )
    path = tmp_path / "script.pt"
    if made == "trace":
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 16, 16)), path)
    else:
        torch.jit.save(torch.jit.script(module), path)
    for name in ("load", "_load_for_lite_interpreter"):
        monkeypatch.setattr(torch.jit, name, None, raising=False)
    monkeypatch.setattr(torch._C, "import_ir_module", None)
    loaded = load(path)
    found = loaded.module.state_dict()
    for name, tensor in module.named_parameters():
        assert torch.equal(found[name], tensor), name
    assert any("TorchScript archive without running its code" in x for x in loaded.spec.assumed)


def test_torchscript_of_other_modules_gives_every_tensor_by_its_name(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), tmp_path / "a.pt")
    content = weightfiles.read(tmp_path / "a.pt").content
    expected = module.state_dict()
    assert set(content) == set(expected)
    assert all(torch.equal(content[name], expected[name]) for name in expected)


@pytest.mark.parametrize("damage", ["weights", "pickle"])
def test_a_flipped_bit_in_an_archive_is_noticed_by_its_checksum(tmp_path, damage):
    path, state = tmp_path / "a.pth", small_state()
    torch.save({"model": state}, path)
    raw = bytearray(path.read_bytes())
    mark = state["blocks.1.mlp.fc1.weight"].numpy().tobytes() if damage == "weights" else b"mlp.fc1"
    raw[raw.index(mark) + len(mark) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"entry 'a(rchive)?/data.*match its checksum"):
        load(path)


def test_an_archive_without_checksums_is_read(tmp_path):
    state = small_state()
    torch.save(state, tmp_path / "a.pth")
    raw = (tmp_path / "a.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        for entry in archive.infolist():  # as torch writes with set_crc32_options(False)
            raw = raw.replace(struct.pack("<I", entry.CRC), bytes(4))
    (tmp_path / "a.pth").write_bytes(raw)
    assert torch.equal(load(tmp_path / "a.pth").module.norm.weight, state["norm.weight"])


@pytest.mark.parametrize("legacy", [False, True])
def test_namespace_optimizer_and_odd_objects_are_skipped(tmp_path, legacy):
    state = small_state()
    content = {
        "model": OrderedDict(state),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]},
        "args": argparse.Namespace(lr=1.0, path=tmp_path),
        "best": np.float64(3.0),
        "seen": {1, 2},
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load(tmp_path / "a.pth")
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"epoch,loss\n1,2.0\n", "is text"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "noise": (bytes(range(255, 100, -1)), "starts with the bytes"),
    "pickle": (b"\x80\x02garbage", "cannot read"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_checkpoint_says_what_it_is(tmp_path, kind):
    content, words = BROKEN[kind]
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(path)
    assert str(path) in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz", "legacy.pth"])
@pytest.mark.parametrize("kept", [0.3, 0.97])
def test_truncated_files_are_refused(tmp_path, suffix, kept):
    path = tmp_path / f"whole.{suffix}"
    state = small_state()
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        torch.save(state, path, _use_new_zipfile_serialization="legacy" not in suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=path.name):
        load(path)


def lying_safetensors(length=None, shape=(2, 2), end=16):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", length or len(header)) + header + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        lying_safetensors(length=2**50),
        lying_safetensors(shape=(100000, 100000)),
        lying_safetensors(shape=(100000, 100000), end=40000000000),
        lying_safetensors(end=2**40),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, content):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=path.name):
        load(path)


def test_an_npz_whose_array_claims_more_than_its_entry_is_refused(tmp_path):
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**5)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("cls.npy", header.getvalue() + bytes(16))
    with pytest.raises(CheckpointError, match=r"cls\.npy claims"):
        load(tmp_path / "lie.npz")


def test_an_npz_with_pickled_objects_is_refused(tmp_path):
    marker = tmp_path / "marker"
    np.savez(tmp_path / "evil.npz", cls=np.array([Attack(marker)], dtype=object))
    with pytest.raises(CheckpointError):
        load(tmp_path / "evil.npz")
    assert not marker.exists()


def test_a_compressed_torch_archive_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    with pytest.raises(CheckpointError, match="torch never does"):
        load(tmp_path / "bomb.pth")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    state = small_state()
    state["norm.weight"] = torch.ones(1).expand(10**7)
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match=r"norm\.weight claims shape"):
        load(tmp_path / "wide.pth")


def test_missing_paths_and_folders_say_what_was_expected(tmp_path):
    with pytest.raises(CheckpointError, match="neither a file"):
        load(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="0 checkpoint files"):
        load(tmp_path)
    torch.save(small_state(), tmp_path / "a.pth")
    assert load(tmp_path).spec.name == "a"
    torch.save(small_state(), tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"2 checkpoint files \(a.pth, b.pth\)"):
        load(tmp_path)


def test_mappings_without_end_are_refused(tmp_path):
    content = {"epoch": 1}
    content["model"] = {"model": content}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FormatError, match="without end"):
        load(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(2)], torch.ones(3), 7, None])
def test_contents_without_named_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FormatError, match="no named tensors"):
        load(tmp_path / "a.pth")
