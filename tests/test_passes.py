"""Forward passes: sizes of batches, memory that runs out, bytes that become floats."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import functional as F

import attnprobe
from attnprobe.errors import AttnprobeError
from attnprobe.images import ImageBatch, open_images
from attnprobe.images.decoding import normalise
from attnprobe.passes import ahead, pieces
from attnprobe.resources import batch_size, decoders
from tests.photographs import SPEC, photograph
from tests.test_analysis import small_model, values

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def images():
    return torch.randn(12, 3, 160, 160, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Fails, as a full device does, above some number of images, at one place of the model."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most, self.seen = inner, most, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


@pytest.mark.parametrize("place", ["patch_embed.norm", "blocks.3.mlp", "blocks.5.attn.proj"])
def test_batches_are_halved_where_memory_is_short(images, place):
    model = small_model()
    whole = attnprobe.analyze(model, images, batch_size=12)
    parent, name = model.get_submodule(place.rpartition(".")[0]), place.rpartition(".")[2]
    small = Small(getattr(parent, name), 3)
    setattr(parent, name, small)
    again = attnprobe.analyze(model, images, batch_size=12)
    assert small.seen[:3] == [12, 6, 3]
    assert max(small.seen[3:]) == 3
    for table in ("distance", "head_kl", "cka"):
        np.testing.assert_allclose(values(again, table), values(whole, table), rtol=1e-4, atol=1e-5)
    assert list(again.images["id"]) == list(whole.images["id"])


def test_one_image_that_does_not_fit_is_an_error(images):
    model = small_model()
    model.blocks[2].mlp = Small(model.blocks[2].mlp, 0)
    with pytest.raises(AttnprobeError, match="one image does not fit the memory of cpu"):
        attnprobe.analyze(model, images, batch_size=4)


def test_other_errors_are_not_taken_for_short_memory(images):
    model = small_model()

    def fail(*_):
        raise RuntimeError("the sizes of tensors do not match")

    model.blocks[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="do not match"):
        attnprobe.analyze(model, images)


@pytest.mark.parametrize(
    ("side", "device", "expected"),
    [(224, CPU, 8), (32, CPU, 64), (1024, CPU, 1), (224, CUDA, 256), (1024, CUDA, 8)],
)
def test_batches_by_pixels(side, device, expected):
    assert batch_size(0, (3, side, side), device) == expected
    assert batch_size(5, (3, side, side), device) == 5


def test_decoders_leave_a_cpu_to_the_model():
    assert decoders(-1, CPU, 16) == 0
    assert decoders(-1, CUDA, 16) == 8
    assert decoders(-1, CUDA, 2) == 1
    assert decoders(3, CPU, 2) == 3


def test_pieces_keep_every_image_and_say_once_what_was_skipped():
    batch = ImageBatch(
        ids=tuple("abcde"),
        pixels=torch.arange(5).view(5, 1, 1, 1),
        numbers=(1, 2, 4, 5, 6),
        digests=np.arange(5 * 32, dtype=np.uint8).reshape(5, 32),
        skipped={3: "d: broken"},
    )
    parts = list(pieces(batch, 2))
    assert [part.ids for part in parts] == [("a", "b"), ("c", "d"), ("e",)]
    assert [part.numbers for part in parts] == [(1, 2), (4, 5), (6,)]
    assert torch.equal(torch.cat([part.pixels for part in parts]), batch.pixels)
    assert np.array_equal(np.concatenate([part.digests for part in parts]), batch.digests)
    assert [part.skipped for part in parts] == [{3: "d: broken"}, {}, {}]
    assert list(pieces(batch, 5)) == [batch]
    assert list(ahead([batch], CPU)) == [batch]


def test_bytes_are_normalised_as_torchvision_does(tmp_path):
    photograph(3).save(tmp_path / "one.png")
    (batch,) = open_images(tmp_path, spec=SPEC).batches(4)
    assert batch.pixels.dtype == torch.uint8
    floats = F.normalize(batch.pixels[0].float() / 255, list(SPEC.mean), list(SPEC.std))
    assert torch.equal(batch.x[0], floats)
    assert torch.equal(normalise(batch.pixels, SPEC), batch.x)


def test_pixels_are_those_of_timms_own_transform(tmp_path):
    from timm.data import create_transform

    photograph(4).save(tmp_path / "one.png")
    (batch,) = open_images(tmp_path, spec=SPEC).batches(1)
    own = create_transform(
        SPEC.input_size,
        interpolation=SPEC.interpolation,
        mean=SPEC.mean,
        std=SPEC.std,
        crop_pct=SPEC.crop_pct,
    )
    assert torch.equal(batch.x[0], own(photograph(4)))
