"""Figures hold the tables' numbers, each of them once, and nothing else."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from golden_plots import GOLDEN, NAMES, outline
from synthetic import synthetic_result

from attnprobe import plugins
from attnprobe.errors import ResultError
from attnprobe.plots import MOST, NIGHT, PALETTE, Plot, drawable

ALL = plugins.names("attnprobe.plots")
DEPTH = {"distance": "distance", "entropy": "entropy", "head_kl": "head_kl_mean"}


def plot(name) -> Plot:
    return plugins.load("attnprobe.plots", name, "PLOT")


PLOTS = [name for name in ALL if plot(name).of == "results"]


def several(count):
    return [
        synthetic_result(f"m{n}", layers=3 + n, heads=2 + n % 2, seed=n, tokens=("cls", "reg"))
        for n in range(count)
    ]


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def means_of(figure):
    return [trace for trace in figure.data if trace.mode == "lines+markers"]


def test_the_brief_plots_are_there():
    assert {*DEPTH, "prefix_mass", "cka", "head_kl_pairs", "profiles"} <= set(PLOTS)


@pytest.mark.parametrize("name", ALL)
def test_plot_is_named_after_its_file_and_explains_itself(name):
    assert plot(name).name == name
    assert plot(name).title
    assert plot(name).caption.endswith(".")


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("count", [1, 2, 5, MOST])
def test_draws_one_to_eight_results_as_plain_json(name, count):
    figure = plot(name).draw(several(count))
    text = figure.to_json()
    assert "NaN" not in text
    assert json.loads(text)["data"]


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("count", [0, MOST + 1])
def test_refuses_no_results_and_too_many(name, count):
    with pytest.raises(ResultError, match="1 to 8"):
        plot(name).draw([synthetic_result()] * count)


@pytest.mark.parametrize(("name", "table"), DEPTH.items())
def test_one_dot_a_head_at_its_value_and_its_layer(name, table):
    result = synthetic_result(layers=5, heads=4)
    (dots,) = traces(plot(name).draw([result]), "one head")
    expected = result.tables[table]
    assert len(dots.x) == 5 * 4
    assert list(dots.y) == pytest.approx(expected.value.tolist())
    assert [round(x) - 1 for x in dots.x] == expected.layer.tolist()


@pytest.mark.parametrize("name", DEPTH)
def test_heads_of_equal_value_do_not_hide_each_other(name):
    (dots,) = traces(plot(name).draw([synthetic_result(layers=2, heads=16)]), "one head")
    assert len({*dots.x}) == len(dots.x)
    assert all(abs(x - round(x)) < 0.5 for x in dots.x)


@pytest.mark.parametrize("name", DEPTH)
def test_line_ribbon_and_uniform_value_are_the_layer_means_rows(name):
    result = synthetic_result(layers=4)
    figure = plot(name).draw([result])
    table = result.tables["layer_means"]
    rows = table[table.metric == name]
    (line,) = means_of(figure)
    assert list(line.x) == [1, 2, 3, 4]
    assert list(line.y) == pytest.approx(rows.value.tolist())
    (band,) = traces(figure, "interval")
    assert sorted(band.y) == pytest.approx(sorted([*rows.low, *rows.high]))
    steps = [y for trace in traces(figure, "uniform attention") for y in trace.y]
    assert steps == pytest.approx([v for v in rows.uniform.dropna() for _ in range(2)])


def test_null_intervals_and_geometry_leave_out_band_and_uniform_line():
    figure = plot("distance").draw([synthetic_result(intervals=False, geometry=False)])
    assert not traces(figure, "interval")
    assert not traces(figure, "uniform attention")
    assert "interval" not in "".join(traces(figure, "one head")[0].hovertext)


def test_null_head_values_leave_out_their_dots():
    result = synthetic_result(layers=2, heads=3)
    table = result.tables["distance"].copy()
    table.loc[table.layer == 1, ["value", "low", "high"]] = math.nan
    holed = replace(result, tables={**result.tables, "distance": table})
    (dots,) = traces(plot("distance").draw([holed]), "one head")
    assert len(dots.y) == 3


def test_axes_carry_units_and_say_where_layers_start():
    figure = plot("distance").draw(several(3))
    assert figure.layout.yaxis.title.text == "Attention distance (px)"
    assert figure.layout.xaxis.title.text == "Layer (1 = first)"
    assert [axis.range[1] for axis in figure.select_xaxes()] == [3.6, 4.6, 5.6]


def test_results_with_different_units_do_not_share_an_axis():
    first, second = several(2)
    table = first.tables["distance"].assign(unit="tokens")
    other = replace(first, tables={**first.tables, "distance": table})
    with pytest.raises(ResultError, match=r"different units: px, tokens"):
        plot("distance").draw([other, second])
    means = first.tables["layer_means"].assign(unit="bits")
    other = replace(first, tables={**first.tables, "layer_means": means})
    with pytest.raises(ResultError, match=r"different units: bits, px"):
        plot("profiles").draw([other, second])


def test_prefix_mass_has_one_mark_a_head_and_token_and_a_line_for_their_sum():
    result = synthetic_result(layers=3, heads=2, tokens=("cls", "register1"))
    figure = plot("prefix_mass").draw([result])
    table = result.tables["prefix_mass"]
    for token in ("cls", "register1"):
        (marks,) = traces(figure, f"{token}, one head")
        assert list(marks.y) == pytest.approx(table[table.token == token].value.tolist())
    (line,) = means_of(figure)
    by_head = table.groupby(["layer", "head"]).value.sum()
    assert list(line.y) == pytest.approx(by_head.groupby("layer").mean().tolist())


def test_tokens_that_only_a_later_model_has_stand_in_the_legend():
    results = [synthetic_result(), synthetic_result("b", tokens=("cls", "register1"))]
    listed = [t for t in plot("prefix_mass").draw(results).data if t.showlegend and t.x]
    names = [trace.name for trace in listed]
    assert "register1, one head" in names
    assert len(set(names)) == len(names)


def test_cka_shows_the_whole_square():
    result = synthetic_result(layers=4)
    (square,) = plot("cka").draw([result]).data
    for row in result.tables["cka"].itertuples():
        assert square.z[row.layer_a][row.layer_b] == pytest.approx(row.value)
    assert list(square.x) == list(square.y) == [1, 2, 3, 4]


@pytest.mark.parametrize(("layers", "heads"), [(1, 2), (7, 3), (13, 4)])
def test_every_ordered_pair_of_heads_has_one_cell(layers, heads):
    result = synthetic_result(layers=layers, heads=heads)
    (mosaic,) = plot("head_kl_pairs").draw([result]).data
    cells = [value for row in mosaic.z for value in row if value is not None]
    table = result.tables["head_kl"]
    assert sorted(cells) == pytest.approx(sorted(table.value), rel=1e-5)
    (row,) = table.sample(1, random_state=layers).itertuples()
    words = f"layer {row.layer + 1}: head {row.head_a + 1} from head {row.head_b + 1}"
    found = [
        z
        for texts, values in zip(mosaic.text, mosaic.z, strict=True)
        for text, z in zip(texts, values, strict=True)
        if text == words
    ]
    assert found == pytest.approx([row.value], rel=1e-5)
    assert "nats" in mosaic.hovertemplate


def test_layers_of_fewer_heads_have_larger_cells_of_the_same_values():
    wide, narrow = synthetic_result(layers=1, heads=6), synthetic_result(layers=2, heads=2)
    rows = narrow.tables["head_kl"].query("layer == 1")
    table = pd.concat([wide.tables["head_kl"], rows], ignore_index=True)
    (mosaic,) = plot("head_kl_pairs").draw([replace(wide, tables={"head_kl": table})]).data
    cells = pd.Series([value for line in mosaic.z for value in line if value is not None])
    expected = [*wide.tables["head_kl"].value, *rows.value.repeat(9)]
    assert sorted(cells) == pytest.approx(sorted(expected), rel=1e-5)


def test_profiles_need_two_models_and_keep_their_colours():
    assert drawable(plot("profiles"), several(1)) == []
    results = several(3)
    figure = plot("profiles").draw(results)
    assert {trace.line.color for trace in means_of(figure)} == set(PALETTE[:3])
    assert len(means_of(figure)) == 3 * len(DEPTH)


def test_drawable_leaves_out_results_without_the_table_or_without_values():
    full, short = synthetic_result(), synthetic_result(metrics=("entropy",))
    empty = replace(full, tables={**full.tables, "distance": full.tables["distance"].head(0)})
    assert drawable(plot("distance"), [full, short, empty]) == [full]


def test_names_cannot_become_markup():
    hostile = "<b>x</b><script>"
    names = [synthetic_result(hostile), synthetic_result("y", seed=1)]
    for name in PLOTS:
        text = plot(name).draw(names).to_json()
        assert "<script" not in text.replace("\\u003c", "<")
        assert "<b>x" not in text.replace("\\u003c", "<")


def test_colours_are_distinct():
    assert len({*PALETTE, *NIGHT}) == 2 * MOST


@pytest.mark.parametrize("name", NAMES)
def test_figures_match_the_golden_outline(name):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    found = outline(name)
    assert [trace["name"] for trace in found] == [trace["name"] for trace in golden]
    for trace, expected in zip(found, golden, strict=True):
        for axis in ("x", "y", "z"):
            assert numbers(trace[axis]) == pytest.approx(numbers(expected[axis]), rel=1e-4)


def numbers(values):
    flat = pd.Series(values or [], dtype=object).explode()
    return [math.inf if value is None else float(value) for value in flat]
