"""Masks: how many, which, how large, from which generator, and what refuses them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_references import FRAMING, build

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Framing, _masking, mae


def framing(rows, cols, scale, patch):
    cell = scale * patch
    return Framing((rows * cell, cols * cell), (patch, patch), (0.5,) * 3, (0.5,) * 3), cell


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 4),
    st.sampled_from([2, 4, 14, 16]),
    st.floats(0.01, 1.0),
    st.integers(0, 2**31),
)
def test_cells_are_whole_and_counted(rows, cols, scale, patch, ratio, seed):
    view, cell = framing(rows, cols, scale, patch)
    layout = _masking.cells(view, cell, ratio)
    torch.manual_seed(seed)
    mask = _masking.draw(layout)
    assert mask.shape == (rows * scale, cols * scale)
    assert mask.dtype == torch.bool
    blocks = mask.view(rows, scale, cols, scale)
    first = blocks[:, 0, :, 0]
    assert (blocks == first[:, None, :, None]).all()
    assert int(first.sum()) == math.ceil(rows * cols * ratio) == layout.hidden


def test_the_first_of_a_permutation_are_hidden():
    layout = _masking.cells(FRAMING, 8, 0.3)  # 16 cells of 2 x 2 patches, 5 hidden
    mask = _masking.spread(
        torch.tensor([5, 0, 15, 3, 8, *(set(range(16)) - {5, 0, 15, 3, 8})]), layout
    )
    shown = mask[::2, ::2].flatten().nonzero().flatten().tolist()
    assert shown == [0, 3, 5, 8, 15]


def test_every_cell_is_hidden_as_often():
    layout = _masking.cells(FRAMING, 8, 0.6)
    torch.manual_seed(0)
    draws = torch.stack([_masking.draw(layout)[::2, ::2] for _ in range(3000)]).double()
    share = layout.hidden / 16
    deviation = math.sqrt(share * (1 - share) / 3000)
    assert ((draws.mean(0) - share).abs() < 4.5 * deviation).all()
    # pairs too: the permutation is uniform, not only its margins
    both = (draws[:, 0, 0] * draws[:, 3, 3]).mean()
    expected = share * (layout.hidden - 1) / 15
    assert abs(float(both) - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 3000)


def test_masks_come_from_torch_alone():
    layout = _masking.cells(FRAMING, 4, 0.5)
    torch.manual_seed(3)
    first = _masking.draw(layout)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(3)
    assert torch.equal(first, _masking.draw(layout))
    assert not torch.equal(first, _masking.draw(layout))


@pytest.mark.parametrize(
    ("size", "patch", "cell", "named"),
    [
        ((32, 32), (4, 4), 32 + 1, "mask_patch 33"),
        ((32, 32), (4, 4), 6, "4 x 4"),
        ((40, 32), (4, 4), 16, "40 x 32"),
        ((32, 32), (8, 4), 4, "8 x 4"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_with_what_would(size, patch, cell, named):
    with pytest.raises(AttnprobeError, match=named) as error:
        _masking.cells(Framing(size, patch, (0.5,) * 3, (0.5,) * 3), cell, 0.6)
    assert "mask_patch" in error.value.cause
    suggested = error.value.remedy.split("one of ")[1].split(", ")
    for side in map(int, suggested):
        _masking.cells(Framing(size, patch, (0.5,) * 3, (0.5,) * 3), side, 0.6)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01])
def test_ratios_that_are_none_are_refused(ratio):
    with pytest.raises(AttnprobeError, match="mask_ratio"):
        _masking.cells(FRAMING, 8, ratio)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.floats(0.02, 0.98), st.integers(0, 2**31))
def test_the_least_noise_stays_visible(patches, ratio, seed):
    if not 0 < int(patches * (1 - ratio)) < patches:
        with pytest.raises(AttnprobeError, match="mask_ratio"):
            mae.visible(patches, ratio)
        return
    kept = mae.visible(patches, ratio)
    noise = torch.rand(3, patches, generator=torch.Generator().manual_seed(seed))
    index, restore, hidden = _masking.shuffle(noise, kept)
    assert kept == int(patches * (1 - ratio))
    assert index.shape == (3, kept)
    assert (hidden.sum(1) == patches - kept).all()
    assert not hidden.gather(1, index).any()
    shown = noise.masked_fill(hidden, -1).amax(1)
    assert (shown <= noise.masked_fill(~hidden, 2).amin(1)).all()
    order = torch.cat((index, torch.full((3, patches - kept), -1)), 1)
    assert torch.equal(order.gather(1, restore) >= 0, ~hidden)


def test_pixels_of_hidden_patches():
    mask = torch.tensor([[[True, False], [False, False]]])
    pixels = _masking.hidden_pixels(mask, (4, 6))
    assert pixels.shape == (1, 1, 4, 6)
    assert pixels[0, 0, :2, :3].all()
    assert int(pixels.sum()) == 6


def test_a_mask_hides_what_it_says():
    module = build("simmim").eval()
    torch.manual_seed(2)
    images, mask = torch.randn(2, 3, 32, 32), torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, 2:4, 4:6] = True
    other = images.clone()
    other[:, :, 8:16, 16:24] += 1
    with torch.no_grad():
        assert torch.equal(module.reconstruct(images, mask), module.reconstruct(other, mask))
        other[:, :, 0, 0] += 1
        assert not torch.equal(module.reconstruct(images, mask), module.reconstruct(other, mask))


def test_mae_sees_visible_patches_alone():
    module = build("mae").eval()
    torch.manual_seed(2)
    images, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 64)
    with torch.no_grad():
        made, hidden = module.predict(images, noise)
        changed = images + _masking.hidden_pixels(hidden.view(2, 8, 8), (32, 32))
        assert torch.equal(made, module.predict(changed, noise)[0])
        assert not torch.equal(made, module.predict(images + 1, noise)[0])
        whole = module.encoder.forward_features(images)
    assert whole.shape == (2, 65, 32)  # nothing is left out once the objective is done


def test_cells_of_other_shapes_than_the_model_is_told():
    view = replace(FRAMING, size=(16, 32))
    assert _masking.draw(_masking.cells(view, 8, 0.5)).shape == (4, 8)
