"""Sources: every place that can hold images gives the same tensors."""

import os
import zipfile

import numpy as np
import pytest
import torch
from photographs import NAMES, SPEC, drain, encode, photograph, write_folder, write_source

from attnprobe.errors import ImagesError
from attnprobe.images import open_images


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.mark.parametrize("kind", ["list", "strings", "txt", "npz", "npz compressed", "tar"])
def test_every_source_gives_the_tensors_of_the_folder(folder, tmp_path, kind):
    _, expected, _ = drain(open_images(folder, spec=SPEC))
    source = write_source(folder, tmp_path, kind)
    ids, x, _ = drain(open_images(source, spec=SPEC))
    assert torch.equal(x, expected)
    if kind == "tar":
        assert ids == sorted(NAMES)
    if kind == "npz":
        assert ids[1] == "set.npz#00001"


def test_links_are_followed_once(folder):
    (folder / "a/loop").symlink_to(folder, target_is_directory=True)
    other = folder.parent / "elsewhere"
    other.mkdir()
    (other / "x.jpg").write_bytes(encode(photograph(7)))
    (folder / "linked").symlink_to(other, target_is_directory=True)
    ids = drain(open_images(folder, spec=SPEC))[0]
    assert ids == sorted([*NAMES, "linked/x.jpg"])


def test_names_of_any_bytes_become_text(folder):
    (folder / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(encode(photograph(0)))
    ids = drain(open_images(folder, spec=SPEC))[0]
    assert "\\xff\\xfe.jpg" in ids
    assert [name.encode().decode() for name in ids] == ids


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone", None, "does not exist"),
        ("x.npz", b"junk", "is not an npz"),
        ("x.tar", b"junk", "not a complete, uncompressed tar"),
        ("x.txt", b"\xff\xfe\xff", "cannot read the list"),
        ("x.txt", b"a.jpg\na.jpg\n", "names a.jpg twice"),
        ("x.txt", b"# nothing\n", "holds no image files"),
        ("y" * 5000, None, "does not exist"),
    ],
)
def test_unusable_sources_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImagesError, match=message) as caught:
        open_images(tmp_path / name, spec=SPEC)
    assert caught.value.remedy


def test_npz_edges_are_checked(tmp_path):
    for edges in ([0, 9], [4, 2], [-1, 3], [0.0, 3.0]):
        np.savez(tmp_path / "x.npz", jpeg=np.zeros(5, np.uint8), offset=np.array(edges))
        with pytest.raises(ImagesError, match="`offset` must rise"):
            open_images(tmp_path / "x.npz", spec=SPEC)


@pytest.mark.parametrize("size", [10**13, 2**40, 10**6])
@pytest.mark.parametrize("name", ["jpeg", "offset"])
def test_npz_headers_that_claim_too_much_are_refused(tmp_path, name, size):
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        for entry in ("jpeg", "offset"):
            with archive.open(f"{entry}.npy", "w") as file:
                shape = (size,) if entry == name else (2,)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.write(b"\0\1")
    with pytest.raises(ImagesError, match=rf"{name}\.npy claims {size} bytes"):
        open_images(tmp_path / "huge.npz", spec=SPEC)
