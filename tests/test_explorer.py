"""The linked views of a page: what it carries of the maps, and what it says it leaves out."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import synthetic_result
from synthetic_maps import (
    POOLED,
    SHIFTED,
    SWIN,
    VIT,
    described,
    synthetic_maps,
    unpacked,
    with_maps,
)
from test_report import HOSTILE, payload, read, words

from attnprobe import maps
from attnprobe.errors import ResultError
from attnprobe.report import packing, render
from attnprobe.report.explorer import explorer
from attnprobe.report.layerparts import layer_parts, photographs, pixels
from attnprobe.types import TokenGrid

OBLONG = TokenGrid(8, 12, (4.0, 6.0), 0, (4, 6), (2, 3))
SHALLOW = TokenGrid(8, 12, (4.0, 6.0), 0, (4, 6), (2, 0))


def result_of(*grids, heads=3, images=12, photos=2, **options):
    base = synthetic_result(layers=len(grids), heads=heads, images=images, **options)
    return with_maps(base, list(grids), images=photos)


def decoded(layer, data):
    """The arrays of one layer of a page, and times uniform where they are codes."""
    found = unpacked(layer["packed"])
    heads, at = layer["heads"], 0

    def cut(kind, *shape):
        nonlocal at
        count = int(np.prod(shape))
        part = np.frombuffer(found, kind, count, at).reshape(shape)
        at += part.nbytes
        return part

    quantiles = cut("<u2", heads, layer["quantiles"])
    bins = cut("<u2", heads, len(layer["even"]))
    place = cut("u1", heads, *layer["grid"])
    offset = cut("u1", heads, *layer["offsets"])
    cells = layer["cells"]
    rest = (len(found) - at) // (heads * len(layer["queries"]) * cells[0] * cells[1])
    rows = cut("u1", rest, heads, len(layer["queries"]), *cells)
    assert at == len(found)
    steps = {"place": data["meanSteps"], "offset": data["meanSteps"], "rows": data["steps"]}
    codes = {"place": place, "offset": offset, "rows": rows}
    ratio = {
        name: np.where(code == 0, 0.0, 2.0 ** (code / steps[name] - 8.0))
        for name, code in codes.items()
    }
    return {"quantiles": quantiles * layer["scale"], "bins": bins / 65535, **ratio}


def near(found, expected, steps):
    """Whether values agree within half a step of the codes, between the ends of the codes."""
    low, high = 2.0**-6, 2.0 ** (8 - 1 / steps)
    octaves = np.abs(np.log2(np.clip(found, low, high)) - np.log2(np.clip(expected, low, high)))
    # stored codes are rounded once before, to sixteenths of an octave
    return octaves.max() <= 0.5 / steps + 0.5 / 16 + 1e-6


@pytest.mark.parametrize("grid", [VIT, SWIN, SHIFTED, OBLONG, POOLED])
def test_what_the_page_carries_is_what_was_stored(grid):
    result = result_of(grid)
    data = explorer([result]).data
    layer = data["models"][0]["layers"][0]
    found, stored = decoded(layer, data), maps.split(result.arrays["maps"], 0)
    assert layer["queries"] == stored.queries.tolist()
    assert near(found["rows"], maps.decode(stored.rows), data["steps"])
    assert np.array_equal(found["rows"] == 0, stored.rows == 0)
    assert near(found["place"], stored.place.astype(float), data["meanSteps"])
    assert found["bins"].sum(1) == pytest.approx(1, abs=len(layer["even"]) / 65535)
    if stored.pool == 1:
        even = packing.uniform_offset(grid)
        assert near(found["offset"], stored.offset / even, data["meanSteps"])


@pytest.mark.parametrize("grid", [VIT, SWIN, SHIFTED, OBLONG, SHALLOW])
def test_uniform_attention_by_displacement_heeds_windows_and_masks(grid):
    rows, cols = grid.extent
    visible = grid.visible()
    weight = (visible / visible.sum(-1, keepdims=True)).mean(0)
    expected = np.zeros((2 * rows - 1, 2 * cols - 1))
    for query in range(rows * cols):
        for key in range(rows * cols):
            down, right = key // cols - query // cols, key % cols - query % cols
            expected[down + rows - 1, right + cols - 1] += weight[query, key] / (rows * cols)
    assert packing.uniform_offset(grid) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("grid", [VIT, OBLONG])
def test_mass_by_distance_counts_pairs_of_patches(grid):
    gap = grid.distances() / grid.pixels_per_token()
    counts = np.bincount(np.rint(gap).astype(int).ravel())
    even = TokenGrid(*grid.extent, grid.patch)
    found = packing.by_distance(packing.uniform_offset(even), even)
    assert found == pytest.approx(counts / counts.sum(), abs=1e-12)


@pytest.mark.parametrize("pool", [1, 2, 3, 4])
def test_cells_of_displacement_keep_mass_and_middle(pool):
    mass = np.random.default_rng(0).uniform(size=(2, 27, 37))
    cells = packing.by_cell(mass, pool)
    assert cells.sum((1, 2)) == pytest.approx(mass.sum((1, 2)))
    assert all(side % 2 for side in cells.shape[1:])
    # turned upside down it is the same: the query stands in the middle
    assert packing.by_cell(mass[:, ::-1, ::-1], pool) == pytest.approx(cells[:, ::-1, ::-1])
    alone = np.zeros((27, 37))
    alone[13, 18] = 1.0
    middle = packing.by_cell(alone, pool)
    assert middle[tuple(side // 2 for side in middle.shape)] == 1.0


def test_the_ladder_goes_down_until_everything_fits():
    result = result_of(VIT, VIT, heads=4, photos=3)
    parts = list(layer_parts(result))
    photos = [[len(file) for _, file in photographs(result)]]
    sizes, levels = [], []
    limit = 10**9
    while not levels or levels[-1] != packing.LEVELS[-1]:
        level, texts = packing.fit(parts, photos, limit)
        beside = sum(photos[0][: level.images])
        size = sum(map(len, texts)) + (0 if level == packing.LEVELS[-1] else beside)
        assert size <= limit or level == packing.LEVELS[-1]
        levels.append(level)
        sizes.append(size)
        limit = size - 1
    assert sizes == sorted(sizes, reverse=True)
    assert [(level.steps, level.images, level.thin) for level in levels] == [
        *((8, None, 1), (4, None, 1), (2, None, 1)),
        *((2, 2, 1), (2, 1, 1), (2, 1, 2), (2, 1, 4), (2, 0, 0)),
    ]


def shown(monkeypatch, result, budget):
    """Linked views under a smaller budget, with their layers read back."""
    monkeypatch.setattr(packing, "budget", lambda heads: budget)
    found = explorer([result])
    return found, [decoded(layer, found.data) for layer in found.data["models"][0]["layers"]]


def test_what_is_left_out_is_said(monkeypatch):
    result = result_of(VIT, heads=4, photos=3)
    whole, (layer,) = shown(monkeypatch, result, 10**9)
    assert whole.notes == ["Values on the maps are rounded to within 4 %."]
    assert layer["rows"].shape[0] == 3
    parts = list(layer_parts(result))
    size = {
        level: sum(map(len, packing._texts(parts, level)))
        + sum(4 * len(file) // 3 for _, file in photographs(result)[: level.images])
        for level in packing.LEVELS
    }
    fewer, (layer,) = shown(monkeypatch, result, size[packing.Level(2, 2)] + 10)
    assert "within 19 %" in fewer.notes[0]
    assert "all but 2 of 3 images are left out; the run folder holds" in fewer.notes[1]
    assert layer["rows"].shape[0] == 2
    assert len(fewer.data["images"]) == 2
    thin, (layer,) = shown(monkeypatch, result, size[packing.Level(2, 1, 2)] + 10)
    assert "all but one in 4 of the stored patches" in thin.notes[1]
    stored = maps.split(result.arrays["maps"], 0)
    kept = thin.data["models"][0]["layers"][0]["queries"]
    assert set(kept) < set(stored.queries.tolist())
    at = np.isin(stored.queries, kept)
    assert near(layer["rows"][0], maps.decode(stored.rows[0][:, at]), 2)
    monkeypatch.setattr(packing, "budget", lambda heads: 10)
    none = explorer([result])
    assert "the attention of single patches" in none.notes[1]
    assert none.data["models"][0]["layers"][0]["queries"] == []
    assert none.data["images"] == []


def test_a_page_about_two_vit_b_is_under_eight_megabytes():
    one = synthetic_maps([VIT], 12, images=3, seed=3)
    alike = {f"{name}{n:03d}": one[f"{name}000"] for n in range(12) for name in PARTS}
    arrays = {**one, **alike, "pool": np.ones(12, int)}
    results = [
        replace(synthetic_result(name, layers=12, heads=12, images=64), arrays={"maps": arrays})
        for name in ("a", "b")
    ]
    page = render(results)
    assert 4_000_000 < len(page.encode()) < 8_000_000
    data = payload(page)["explorer"]
    assert len(decoded(data["models"][1]["layers"][11], data)["rows"]) == 3


PARTS = ("queries", "rows", "place", "offset")


def test_numbers_are_those_of_the_tables():
    result = result_of(VIT, VIT)
    layer = explorer([result]).data["models"][0]["layers"][1]
    for name in ("distance", "entropy", "head_kl_mean"):
        table = result.tables[name].set_index(["layer", "head"])
        for head, found in enumerate(layer["values"][name]):
            expected = table.loc[(1, head), ["value", "low", "high"]].tolist()
            assert found == pytest.approx(expected, rel=1e-4)
    assert layer["uniform"]["distance"] == pytest.approx(result.layers.distance_uniform[1], 1e-4)


@pytest.mark.parametrize(("images", "kept"), [(12, 12), (100, 41)])
def test_distances_of_single_images_are_quantiles(images, kept):
    result = result_of(VIT, images=images)
    data = explorer([result]).data
    layer = data["models"][0]["layers"][0]
    found = decoded(layer, data)["quantiles"]
    assert found.shape == (3, kept)
    samples = result.samples["distance"]
    for head in range(3):
        values = samples[(samples["head"] == head) & (samples["layer"] == 0)].value
        expected = np.quantile(values, np.linspace(0, 1, kept))
        assert found[head] == pytest.approx(expected, abs=layer["scale"])


@pytest.mark.parametrize(
    ("unit", "value"), [("px", 96.0), ("tokens", 6.0), ("tokens x side", 84.0)]
)
def test_units_of_distance_are_taken_back_to_pixels(unit, value):
    assert value * pixels(unit, VIT) == pytest.approx(96.0)
    assert pixels("unit square", VIT) == pytest.approx(16.0 * 13)
    assert pixels("furlongs", VIT) is None


def test_no_maps_still_give_numbers_and_say_how_to_get_maps():
    result = synthetic_result(layers=2)
    found = explorer([result])
    assert found.data["images"] == []
    assert any("--maps 3" in note for note in found.notes)
    layer = found.data["models"][0]["layers"][0]
    assert "queries" not in layer
    assert len(unpacked(layer["packed"])) == 2 * 3 * layer["quantiles"] > 0
    text = words(render([result]))
    assert "Explore the heads" in text
    assert "--maps 3" in text


def test_maps_of_other_images_are_told_apart():
    first, second = result_of(VIT, name="a"), result_of(VIT, name="b")
    second = replace(second, images=second.images.assign(id=second.images.id + "x"))
    found = explorer([first, second])
    assert len(found.data["images"]) == 4
    assert [model["images"].count(None) for model in found.data["models"]] == [2, 2]
    assert len(found.data["files"]) == 2  # equal files travel once
    assert any("different images" in note for note in found.notes)


def test_images_that_models_share_are_one():
    found = explorer([result_of(VIT, name="a"), result_of(SHIFTED, VIT, name="b")])
    assert found.data["images"] == ["i0.png", "i1.png"]
    assert found.data["models"][0]["images"] == found.data["models"][1]["images"]
    assert not any("different images" in note for note in found.notes)


def test_a_page_without_values_by_head_has_no_explorer():
    result = synthetic_result(metrics=("cka",))
    assert explorer([result]) is None
    page = render([result])
    assert "Explore the heads" not in words(page)
    assert "explorer" not in payload(page)


def test_layers_without_a_grid_keep_their_numbers():
    result = synthetic_result(layers=2)
    result = replace(result, layers=result.layers.assign(rows=[0, 14], patch_h=[np.nan, 16.0]))
    layers = explorer([result]).data["models"][0]["layers"]
    assert "grid" not in layers[0]
    assert layers[0]["values"]["entropy"][0][0] > 0
    assert layers[1]["grid"] == [14, 14]


def test_hostile_names_of_models_and_images_stay_text():
    result = result_of(VIT, name=HOSTILE)
    result = replace(result, images=result.images.assign(id=HOSTILE))
    page = render([result, result_of(VIT)])
    inert = HOSTILE.replace("\u2028", "\u2028")
    data = payload(page)["explorer"]
    assert data["models"][0]["name"] == inert
    assert data["images"][0] == inert
    assert not any(script.startswith("alert(1)") for script in read(page).scripts)
    assert "<img src=x" not in page
    for name in ("packed",):
        assert not set("<>&") & set(data["models"][0]["layers"][0][name])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("rows000", lambda rows: rows[:, :, :-1]),
        ("place000", lambda place: place[:, :-1]),
        ("offset000", lambda offset: offset[:, :, 1:]),
        ("pool", lambda pool: pool + 1),
        ("queries000", lambda queries: queries + 10_000),
        ("edges", lambda edges: edges + 1),
        ("edges", lambda edges: edges[::-1]),
        ("index", lambda index: index[:-1]),
    ],
)
def test_maps_that_do_not_fit_are_refused(part, change):
    result = result_of(VIT)
    arrays = dict(result.arrays["maps"])
    arrays[part] = change(arrays[part])
    with pytest.raises(ResultError, match=r"do not fit|damaged") as caught:
        explorer([replace(result, arrays={"maps": arrays})])
    assert "again" in caught.value.remedy


def test_a_grid_of_another_size_is_refused():
    result = result_of(VIT)
    other = described(result.layers, [TokenGrid(7, 7, (32.0, 32.0))])
    with pytest.raises(ResultError, match="layer 1 do not fit"):
        explorer([replace(result, layers=other)])
