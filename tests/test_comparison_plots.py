"""Figures of comparisons hold the tables' numbers; every model stands against the first."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planted import planted

from attnprobe import plugins
from attnprobe.comparison import compare
from attnprobe.plots import PALETTE

FAST = {"resamples": 1000, "permutations": 1000}
NAMES = ("differences", "head_sets", "running", "cross_cka")


def features(seed, layers, images=40):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, 12)) for _ in range(layers)]


def model(seed, layers=4, heads=3, **options):
    distance = 40.0 + 5 * np.arange(layers)[:, None] + np.arange(heads) + seed
    return planted(
        options.pop("name", f"m{seed}"),
        distance=distance,
        features=features(seed, layers),
        images=40,
        seed=seed,
        **options,
    )


def draw(name, comparison):
    return plugins.load("attnprobe.plots", name, "PLOT").draw(comparison)


def lines(figure):
    return [trace for trace in figure.data if trace.mode == "lines+markers"]


@pytest.fixture(scope="module")
def three():
    return compare([model(0), model(1), model(2)], **FAST)


@pytest.fixture(scope="module")
def uneven():
    """12 x 12 heads against 24 x 16."""
    return compare([model(0, 12, 12), model(1, 24, 16)], **FAST)


@cache
def several(count):
    return compare([model(seed) for seed in range(count)], **FAST)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_draws_any_number_of_models_as_plain_json(name, count):
    text = draw(name, several(count)).to_json()
    assert "NaN" not in text
    assert json.loads(text)["data"]


@pytest.mark.parametrize("name", NAMES)
def test_belongs_to_comparisons(name):
    assert plugins.load("attnprobe.plots", name, "PLOT").of == "comparison"


def test_differences_are_the_rows_of_the_table(three):
    figure = draw("differences", three)
    table = three.tables["differences"]
    assert len(lines(figure)) == 2 * 3
    rows = table.query("model_a == 0 and model_b == 2 and metric == 'distance'")
    rows = rows[rows.scale == "value"]
    drawn = [line for line in lines(figure) if line.line.color == PALETTE[2]]
    (line,) = (each for each in drawn if each.xaxis in (None, "x"))
    assert list(line.y) == pytest.approx(rows.value.tolist())
    assert list(line.x) == [1, 2, 3, 4]
    filled = ["open" not in symbol for symbol in line.marker.symbol]
    assert filled == [bool(q < 0.05) for q in rows.q]


def test_each_pair_has_one_entry_in_the_legend(three):
    for name in ("differences", "head_sets", "running"):
        shown = [trace.name for trace in draw(name, three).data if trace.showlegend]
        assert shown == ["m0 \N{MINUS SIGN} m1", "m0 \N{MINUS SIGN} m2"]


def test_models_of_different_depth_share_an_axis_of_depth(uneven):
    for name in ("differences", "head_sets"):
        figure = draw(name, uneven)
        assert figure.layout.xaxis.title.text == "Relative depth"
        for line in lines(figure):
            assert line.x[0] == 0
            assert line.x[-1] == 1
            assert len(line.x) == 12


def test_inputs_of_different_size_are_compared_as_parts_of_uniform():
    other = model(1)
    other = replace(other, model={**other.model, "input_size": [3, 384, 384]})
    figure = draw("differences", compare([model(0), other], **FAST))
    assert figure.layout.yaxis.title.text == "Difference in attention distance (of uniform)"
    assert figure.layout.yaxis2.title.text == "Difference in attention entropy (nats)"


def test_running_ends_at_all_images(three):
    (first, *_) = lines(draw("running", three))
    assert first.x[-1] == 40
    assert list(first.x) == sorted(first.x)


def test_similarity_across_models_is_as_tall_as_one_and_as_wide_as_the_other(uneven):
    (square,) = draw("cross_cka", uneven).data
    assert (len(square.y), len(square.x)) == (12, 24)
    row = uneven.tables["cross_cka"].iloc[30]
    assert square.z[row.layer_a][row.layer_b] == pytest.approx(row.value)


def test_names_cannot_become_markup():
    hostile = compare([model(0, name="<b>x</b><script>"), model(1)], **FAST)
    for name in NAMES:
        text = draw(name, hostile).to_json().replace("\\u003c", "<")
        assert "<script" not in text
        assert "<b>x" not in text
