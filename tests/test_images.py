"""Images: full batches in a fixed order; what is broken is skipped and named."""

import hashlib
import os
import warnings

import numpy as np
import pytest
import torch
from photographs import NAMES, SPEC, bomb, drain, encode, photograph, write_folder, write_source
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional as vision

from attnprobe.errors import ImagesError
from attnprobe.images import ImageSet, evenly_spaced, open_images
from attnprobe.types import CheckpointSpec


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


def test_preprocessing_equals_torchvision_by_hand(folder):
    ids, x, _ = drain(open_images(folder, spec=SPEC))
    assert ids == sorted(NAMES)
    assert x.shape == (5, 3, 32, 32)
    assert x.dtype == torch.float32
    image = Image.open(folder / NAMES[3])
    image = vision.resize(image, 35, vision.InterpolationMode.BICUBIC)  # floor(32 / 0.9)
    pixels = vision.to_tensor(vision.center_crop(image, [32, 32]))
    torch.testing.assert_close(x[3], vision.normalize(pixels, SPEC.mean, SPEC.std))


def test_transform_is_told(folder):
    steps = open_images(folder, spec=SPEC).transform
    assert steps["resize"] == "bicubic, short side 35"
    assert steps["crop"] == "centre 32 x 32"
    assert "EXIF" in steps["decode"]
    assert "0.485" in steps["normalise"]
    wide = CheckpointSpec("wide", "vit", input_size=(3, 32, 64), crop_pct=1.0)
    assert open_images(folder, spec=wide).transform["resize"] == "bicubic, to cover 32 x 64"
    assert drain(open_images(folder, spec=wide))[1].shape == (5, 3, 32, 64)


def test_one_file_and_the_bundled_set(folder):
    ids, x, _ = drain(open_images(folder / "c.jpg", spec=SPEC))
    assert (ids, len(x)) == (["c.jpg"], 1)
    assert open_images("bundled", spec=SPEC).count >= 64


@pytest.mark.parametrize("convert", [torch.tensor, np.array, torch.DoubleTensor])
def test_a_tensor_is_taken_as_it_is(convert):
    values = torch.randn(3, 3, 32, 32, dtype=torch.float32)
    images = open_images(convert(values.tolist()), spec=SPEC)
    ids, x, _ = drain(images)
    assert ids == ["tensor#00000", "tensor#00001", "tensor#00002"]
    assert torch.equal(x, values)
    values[1, 0, 0, 0] = torch.nan
    images = open_images(values, spec=SPEC)
    assert len(drain(images)[0]) == 2
    assert images.skipped == ("tensor#00001: values are not finite",)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3, 16, 16),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 32, 32),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(tensor):
    with pytest.raises(ImagesError, match=r"expected preprocessed floats \[n, 3, 32, 32\]"):
        open_images(tensor, spec=SPEC)


def test_a_list_of_tensors_is_one_tensor():
    values = torch.randn(3, 3, 32, 32)
    for rows in (list(values), tuple(values.numpy())):
        assert torch.equal(drain(open_images(rows, spec=SPEC))[1], values)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty"),
        ([torch.zeros(3, 32, 32), torch.zeros(3, 16, 16)], "differ in shape"),
        (["a.jpg", torch.zeros(3, 32, 32)], "list of Tensor and str"),
        (DataLoader([1, 2]), "cannot be a DataLoader"),
        (iter(["a.jpg"]), "cannot be a list_iterator"),
        ({"a.jpg"}, "cannot be a set"),
        (b"a.jpg", "cannot be a bytes"),
        (None, "cannot be a NoneType"),
        (np.array(["a.jpg"]), "array of <U5"),
    ],
)
def test_what_is_no_source_is_refused(source, message):
    with pytest.raises(ImagesError, match=message) as caught:
        open_images(source, spec=SPEC)
    assert caught.value.remedy


def test_batches_stay_full_when_images_are_broken(folder):
    good = encode(photograph(9))
    (folder / "a/0.jpg").write_bytes(b"")
    (folder / "a/b/2.jpg").write_bytes(good[: len(good) // 2])
    (folder / "b.png").write_bytes(b"<html>404</html>")
    (folder / "c0.jpg").symlink_to(folder / "gone.jpg")
    (folder / "c1.png").write_bytes(encode(photograph(1, (2000, 10)), "PNG"))
    (folder / "c2.png").write_bytes(bomb(60_000, 60_000))
    (folder / "c3.gif").write_bytes(encode(Image.new("L", (1, 1)), "GIF"))
    (folder / "c4.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(folder / "pipe.jpg")
    images = open_images(folder, spec=SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids, _, batches = drain(images)
    assert ids == sorted(NAMES)
    assert [len(batch.ids) for batch in batches] == [2, 2, 1]
    assert images.count == 14
    reasons = dict(line.split(": ", 1) for line in images.skipped)
    assert sorted(reasons) == sorted(
        [
            "a/0.jpg",
            "a/b/2.jpg",
            "b.png",
            "c0.jpg",
            "c1.png",
            "c2.png",
            "c3.gif",
            "c4.jpg",
            "pipe.jpg",
        ]
    )
    assert reasons["a/0.jpg"] == "the file is empty"
    assert "truncated" in reasons["a/b/2.jpg"].lower()
    assert reasons["b.png"].startswith("not an image")
    assert reasons["c4.jpg"].startswith("not an image")
    assert "No such file" in reasons["c0.jpg"]
    assert "over 100 times" in reasons["c1.png"]
    assert "pixels" in reasons["c2.png"]
    assert reasons["pipe.jpg"] == "not a regular file"


@pytest.mark.parametrize("data", [b"", b"junk", encode(photograph(0))[:300]])
def test_nothing_usable_is_an_error_with_a_next_step(tmp_path, data):
    (tmp_path / "x.jpg").write_bytes(data)
    images = open_images(tmp_path, spec=SPEC)
    with pytest.raises(
        ImagesError, match=r"none of the 1 images of .* first is x\.jpg: .*\n  Next"
    ):
        drain(images)


def test_workers_change_nothing(folder):
    (folder / "b.jpg").write_bytes(b"junk")
    for seed in range(20):  # more than one worker hands over at once
        (folder / f"many{seed}.jpg").write_bytes(encode(photograph(seed)))
    alone, together = open_images(folder, spec=SPEC), open_images(folder, spec=SPEC)
    ids, x, batches = drain(alone)
    ids_2, x_2, batches_2 = drain(together, workers=2)
    assert ids == ids_2
    assert torch.equal(x, x_2)
    assert [len(b.ids) for b in batches] == [len(b.ids) for b in batches_2]
    assert alone.skipped == together.skipped != ()
    assert alone.sha256 == together.sha256


def test_hash_names_ids_contents_and_order(folder, tmp_path):
    images = open_images(folder, spec=SPEC)
    drain(images)
    first = images.sha256
    expected = hashlib.sha256()
    for name in sorted(NAMES):
        data = (folder / name).read_bytes()
        expected.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(data).digest())
    assert first == expected.hexdigest()
    drain(images, batch_size=5)
    assert images.sha256 == first  # a second pass starts anew, whatever the batches
    archive = open_images(write_source(folder, tmp_path, "tar"), spec=SPEC)
    drain(archive)
    assert archive.sha256 == first
    (folder / "c.jpg").rename(folder / "z.jpg")
    moved = open_images(folder, spec=SPEC)
    drain(moved)
    assert moved.sha256 != first


def test_limit_is_evenly_spaced(folder):
    images = open_images(folder, spec=SPEC, limit=2)
    assert (images.found, images.count) == (5, 2)
    assert drain(images)[0] == [sorted(NAMES)[0], sorted(NAMES)[2]]
    for count, limit in [(10, 3), (7, 7), (7, 9), (50_000, 64), (3, 1)]:
        picked = evenly_spaced(count, limit)
        assert len(set(picked)) == min(count, limit)
        gaps = np.diff([*picked, count])
        assert gaps.max() - gaps.min() <= 1
    with pytest.raises(ImagesError, match="limit of 0"):
        open_images(folder, spec=SPEC, limit=0)


def test_checkpoints_for_grey_images_are_refused(folder):
    with pytest.raises(ImagesError, match="expects 1 channels"):
        open_images(folder, spec=CheckpointSpec("grey", "vit", input_size=(1, 32, 32)))


def test_impossible_batches_are_refused_at_once(folder):
    images = open_images(folder, spec=SPEC)
    assert isinstance(images, ImageSet)
    with pytest.raises(ImagesError, match="batches of 0 images"):
        images.batches(0)
