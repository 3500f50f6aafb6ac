"""Each container read by our own code against the libraries that write it."""

import io
import struct
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attnprobe.checkpoints import load
from attnprobe.checkpoints.reading import extents, weightfiles
from attnprobe.errors import CheckpointError

# torch cannot read SimMIM's, whose configuration is of a class that is not installed
OFFICIAL = sorted((Path(__file__).parent / "official").glob("[!s]*.pth"))
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool),
    *(torch.complex64, torch.complex128),
]


class Settings(dict):
    """A mapping of a class of the user's own, with attributes."""


def numbers(dtype, shape=(3, 5)):
    return (torch.arange(15).reshape(shape) % 7 - 2).to(dtype)


def same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.equal(found.cpu().view(torch.uint8), expected.contiguous().view(torch.uint8))


def tensors(content, prefix=""):
    if isinstance(content, torch.Tensor):
        return {prefix: content}
    if not isinstance(content, dict):
        return {}
    items = [tensors(value, f"{prefix}/{key}") for key, value in content.items()]
    return {name: tensor for found in items for name, tensor in found.items()}


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_official_files_hold_what_torch_finds(path):
    found = tensors(weightfiles.read(path).content)
    expected = tensors(torch.load(path, weights_only=False))
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_is_read_from_torch_files(tmp_path, dtype, legacy):
    path, content = tmp_path / "a.pth", {"a": numbers(dtype), "b": numbers(dtype)[1:, 2:]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = weightfiles.read(path).content
    same(found["a"], content["a"])
    same(found["b"].contiguous(), content["b"])


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.complex128], ids=str)
def test_every_type_is_read_from_safetensors(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    save_file({"a": numbers(dtype), "b": numbers(dtype)[0], "c": torch.empty(0, 3)}, path)
    found = weightfiles.read(path).content
    for name, tensor in load_file(path).items():
        same(found[name], tensor)
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    for space in range(1, 8):  # at every distance from where the type would have to lie
        header = raw[8 : 8 + length] + b" " * space
        path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
        same(weightfiles.read(path).content["a"], numbers(dtype))


@pytest.mark.parametrize("legacy", [False, True])
def test_views_ties_and_wrappers_are_read(tmp_path, legacy):
    whole, path = torch.arange(12.0).reshape(3, 4), tmp_path / "a.pth"
    marked = torch.nn.Parameter(whole.clone())
    marked.tensor_model_parallel = True
    content = OrderedDict(
        transposed=whole.t(),
        tied=whole,
        column=whole[:, 1],
        spread=whole[0, :1].expand(5),
        scalar=torch.tensor(3.0),
        empty=torch.empty(0, 4),
        parameter=torch.nn.Parameter(whole),
        buffer=torch.nn.Buffer(whole),
        marked=marked,
    )
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = weightfiles.read(path).content
    assert list(found) == list(content)
    for name, tensor in content.items():
        assert torch.equal(found[name], tensor.detach()), name
    assert found["tied"].data_ptr() == found["transposed"].data_ptr()


def test_mappings_of_other_classes_are_read_as_mappings(tmp_path):
    inner = defaultdict(dict, a=torch.ones(2))
    torch.save({"model": inner, "other": Settings(b=torch.ones(3), lr=0.1)}, tmp_path / "a.pth")
    found = weightfiles.read(tmp_path / "a.pth").content
    assert torch.equal(found["model"]["a"], torch.ones(2))
    assert torch.equal(found["other"]["b"], torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.complex64, torch.bool])
def test_files_of_the_other_byte_order_are_turned(tmp_path, dtype):
    torch.save({"a": numbers(dtype)}, tmp_path / "a.pth")
    part = {torch.complex64: torch.float32}.get(dtype, dtype).itemsize
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data/0"):
                content = np.frombuffer(content, f"V{part}").view(np.uint8).reshape(-1, part)
                content = content[:, ::-1].tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else content)
    assert torch.equal(torch.load(tmp_path / "b.pth")["a"], numbers(dtype))
    assert torch.equal(weightfiles.read(tmp_path / "b.pth").content["a"], numbers(dtype))


def test_two_objects_in_one_legacy_file_are_refused(tmp_path):
    one = io.BytesIO()
    torch.save({"a": torch.ones(2)}, one, _use_new_zipfile_serialization=False)
    (tmp_path / "a.pth").write_bytes(2 * one.getvalue())
    with pytest.raises(CheckpointError, match="bytes follow its last tensor"):
        weightfiles.read(tmp_path / "a.pth")


def test_numpy_arrays_of_other_orders_and_types_are_read(tmp_path):
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    half = torch.arange(4.0).to(torch.bfloat16)
    arrays = {
        "big": plain.astype(">f4"),
        "fortran": np.asfortranarray(plain),
        "bfloat16": half.view(torch.int16).numpy().view("V2"),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    found = weightfiles.read(tmp_path / "a.npz").content
    assert torch.equal(found["big"], torch.from_numpy(plain))
    assert torch.equal(found["fortran"], torch.from_numpy(plain))
    same(found["bfloat16"], half)


def test_a_tar_of_old_torch_says_how_to_go_on(tmp_path):
    (tmp_path / "a.pth").write_bytes(bytes(257) + b"ustar" + bytes(250))
    with pytest.raises(CheckpointError, match="tar archive") as caught:
        load(tmp_path / "a.pth")
    assert "torch.save" in caught.value.remedy


def test_tensors_that_share_few_bytes_may_not_claim_many(tmp_path):
    path, whole = tmp_path / "a.pth", torch.zeros(250_000)
    torch.save({"a": whole}, path)
    opened = weightfiles.read(path)
    extents.check({str(i): whole for i in range(1000)}, opened)  # tied: they are one
    with pytest.raises(CheckpointError, match=r"100 tensors claim \d+ bytes in a file of"):
        extents.check({str(i): whole[i:] for i in range(100)}, opened)


def test_a_file_may_be_replaced_by_a_new_one_while_its_weights_are_used(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(50_000)}, path)
    found = weightfiles.read(path).content["a"]
    (tmp_path / "b.pth").write_bytes(b"other")
    (tmp_path / "b.pth").replace(path)
    found[0] = 7  # and writing to them leaves the file alone
    assert torch.equal(found[1:], torch.arange(1, 50_000))
    assert path.read_bytes() == b"other"
