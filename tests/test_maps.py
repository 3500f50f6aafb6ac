"""Attention maps of chosen images against whole matrices formed one by one."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from random_modules import random_vit
from timm.models.swin_transformer import SwinTransformer

import attnprobe
from attnprobe import maps
from attnprobe.errors import ImagesError
from attnprobe.kernels import reference
from attnprobe.types import TokenGrid

SWIN = {"img_size": 28, "patch_size": 2, "window_size": 7, "embed_dim": 12, "num_classes": 0}

HALF_STEP = 2 ** (0.51 / maps.STEPS) - 1
SMALLEST = maps.decode(np.array([1]))[0]  # what is seen at all is stored as this or more


def swin():
    torch.manual_seed(1)
    return SwinTransformer(depths=(2, 2), num_heads=(2, 4), **SWIN).eval()


def vit(**options):
    return random_vit(
        **{"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, **options}
    )


def measured(model, side, **options):
    torch.manual_seed(0)
    images = torch.randn(7, 3, side, side)
    result = attnprobe.analyze(model, images, ["distance"], batch_size=3, **options)
    with torch.no_grad(), attnprobe.capture(model) as taps:
        model(images)
    return result, taps.attention


def ratios(inputs, image):
    """Times uniform attention, by token of the whole grid, [heads, tokens, tokens]; NaN unseen."""
    grid = inputs.layer.grid
    part = slice(image * inputs.windows, (image + 1) * inputs.windows)
    weights, _ = reference.patch_rows(reference.logits(inputs, part), grid, "renormalised")
    window, inside = maps.window_of(grid, np.arange(grid.rows * grid.cols))
    found = np.full((weights.shape[1], len(window), len(window)), np.nan)
    visible = grid.visible()
    for query in range(len(window)):
        mine, row = window[query], inside[query]
        seen = visible[mine if len(visible) > 1 else 0, row]
        keys = np.flatnonzero((window == mine) & seen[inside])
        found[:, query, keys] = weights[mine, :, row, inside[keys]].numpy() * seen.sum()
    return found


def places(grid, query, cells):
    """Tokens of the whole grid in each cell of a query's keys, row-major over its window."""
    tokens = np.arange(grid.rows * grid.cols)
    window, inside = maps.window_of(grid, tokens)
    by_position = np.empty(grid.patches, int)
    mine = window == window[query]
    by_position[inside[mine]] = tokens[mine]
    return by_position.reshape(cells)


@pytest.mark.parametrize(
    ("model", "side"),
    [(vit(), 48), (vit(reg_tokens=2), 48), (swin(), 28)],
    ids=["vit", "registers", "swin"],
)
def test_rows_place_and_offset_are_those_of_the_whole_matrix(model, side):
    result, attention = measured(model, side, maps=2)
    arrays = result.arrays["maps"]
    assert arrays["index"].tolist() == [0, 3]
    for inputs in attention:
        grid, layer = inputs.layer.grid, maps.split(arrays, inputs.layer.index)
        whole = np.stack([ratios(inputs, image) for image in (0, 3)])  # [2, heads, tokens, tokens]
        for at, query in enumerate(layer.queries):
            tokens = places(grid, query, layer.rows.shape[-2:])
            expected = np.nan_to_num(whole[:, :, query][..., tokens], nan=0.0)
            np.testing.assert_array_equal(layer.rows[:, :, at] == 0, expected == 0)
            seen = np.maximum(expected, np.where(expected > 0, SMALLEST, 0))
            np.testing.assert_allclose(maps.decode(layer.rows[:, :, at]), seen, rtol=HALF_STEP)
        heads = whole.shape[1]
        place = np.nanmean(whole, axis=(0, 2)).reshape(heads, grid.rows, grid.cols)
        np.testing.assert_allclose(layer.place, place, rtol=2e-3)
        assert layer.offset.sum((1, 2)) == pytest.approx(1, rel=1e-5)


def test_distance_follows_from_the_offsets():
    result, _ = measured(vit(), 48, maps=7)
    for layer in range(2):
        offset = maps.split(result.arrays["maps"], layer).offset
        reach = np.arange(-5, 6) * 8.0
        far = np.hypot(reach[:, None], reach[None, :])
        table = result.tables["distance"].query("layer == @layer")
        np.testing.assert_allclose((offset * far).sum((1, 2)), table["value"], rtol=1e-4)


def test_large_grids_are_stored_in_cells():
    model = vit(img_size=160, patch_size=8)
    result, attention = measured(model, 160, maps=1)
    layer = maps.split(result.arrays["maps"], 0)
    assert layer.pool == 2
    assert layer.rows.shape[2:] == (49, 10, 10)
    whole = ratios(attention[0], 0)[:, layer.queries[5]].reshape(-1, 10, 2, 10, 2).mean((2, 4))
    np.testing.assert_allclose(maps.decode(layer.rows[0, :, 5]), whole, rtol=HALF_STEP)


def test_images_are_kept_as_they_went_in():
    result, _ = measured(vit(), 48, map_images=("tensor#00004",))
    arrays = result.arrays["maps"]
    assert arrays["index"].tolist() == [4]
    picture = Image.open(io.BytesIO(arrays["images"][: arrays["edges"][1]].tobytes()))
    assert picture.size == (48, 48)


def test_nothing_is_kept_unless_asked():
    result, _ = measured(vit(), 48)
    assert "maps" not in result.arrays


def test_an_unknown_image_is_refused_before_the_work():
    with pytest.raises(ImagesError, match=r"'nobody\.jpg'") as caught:
        measured(vit(), 48, map_images=("nobody.jpg",))
    assert "tensor#00000" in caught.value.remedy


@given(st.lists(st.floats(2.0**-7.9, 2.0**7.9), min_size=1))
def test_codes_are_within_half_a_step(values):
    ratio = np.array(values)
    assert np.abs(np.log2(maps.decode(maps.encode(ratio)) / ratio)).max() <= 0.5 / 16 + 1e-9


@given(st.integers(1, 60), st.integers(1, 60))
def test_stored_queries_are_few_and_on_the_grid(rows, cols):
    queries = maps.chosen_queries(TokenGrid(rows, cols, (16, 16)))
    assert len({*queries}) == len(queries) <= maps.SIDE**2
    assert queries.min() >= 0
    assert queries.max() < rows * cols
