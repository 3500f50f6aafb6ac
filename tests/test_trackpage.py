"""Figures of a track hold the tables' numbers; its page is one safe file that holds both."""

import json
import re
from dataclasses import replace

import pytest
from test_report import HOSTILE, payload, read, words
from tracks import checkpoint, run, with_cka

from attnprobe import plugins
from attnprobe.plots import Plot, fills
from attnprobe.plots._track import axis
from attnprobe.report import report
from attnprobe.report.trackpage import render
from attnprobe.tracking import track

STEPS = (10, 50, 100)
PLOTS = ("track_changes", "track_layers", "track_map", "track_movie")


@pytest.fixture(scope="module")
def found():
    return track([with_cka(result) for result in run(STEPS, layers=7)], name="mine")


@pytest.fixture(scope="module")
def page(found):
    return render(found)


def plot(name) -> Plot:
    return plugins.load("attnprobe.plots", name, "PLOT")


def means(found, metric):
    table = found.tables["track"]
    return table[table["metric"] == metric]


@pytest.mark.parametrize("name", PLOTS)
def test_plots_draw_a_track_as_plain_json(found, name):
    assert plot(name).of == "track"
    assert fills(plot(name), found.tables)
    text = plot(name).draw(found).to_json()
    assert "NaN" not in text
    assert json.loads(text)["data"]


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("sizes", [{"layers": 1, "heads": 1}, {"images": 4}])
def test_plots_draw_the_smallest_models_and_do_without_intervals(name, sizes):
    found = track(run((1, 2), **sizes))
    assert "NaN" not in plot(name).draw(found).to_json()


def test_the_map_has_every_layer_of_every_checkpoint(found):
    figure = plot("track_map").draw(found)
    titles = [note.text for note in figure.layout.annotations]
    assert titles[0] == "Attention distance (px)"
    assert titles[-1] == "CKA with the last checkpoint"
    drawn = dict(zip(titles, figure.data, strict=True))
    table = means(found, "entropy").pivot(index="layer", columns="step", values="value")
    cells = [[*row] for row in drawn["Attention entropy (nats)"].z]
    assert cells == table.to_numpy().tolist()
    assert list(drawn["Attention entropy (nats)"].y) == [1, 2, 3, 4, 5, 6, 7]


def test_small_multiples_have_one_panel_a_layer_and_metric(found):
    figure = plot("track_layers").draw(found)
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert len(lines) == 7 * 5
    assert len({trace.xaxis for trace in lines}) == 7 * 5
    table = means(found, "distance")
    for layer in range(7):
        expected = table[table["layer"] == layer]["value"].tolist()
        assert list(lines[layer].y) == pytest.approx(expected, rel=1e-5)
        assert list(lines[layer].x) == [10, 50, 100]
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(legend) == [
        "95 % interval",
        "mean of heads",
        "range of heads",
        "uniform attention",
    ]


def test_a_movie_has_one_frame_a_checkpoint_within_fixed_axes(found):
    figure = plot("track_movie").draw(found)
    assert [frame.name for frame in figure.frames] == ["10", "50", "100"]
    for frame, step in zip(figure.frames, STEPS, strict=True):
        assert len(frame.data) == len(frame.traces) == 4 * 3
        for place, trace in zip(frame.traces, frame.data, strict=True):
            base = figure.data[place]
            assert len(trace.x) == len(base.x)
            axis_of = figure.layout[f"yaxis{base.yaxis.removeprefix('y')}"]
            assert axis_of.range[0] <= min(trace.y) <= max(trace.y) <= axis_of.range[1]
            if base.name == "one head" and base.meta == "distance":
                heads = found.tables["track_heads"]
                here = heads[(heads["metric"] == "distance") & (heads["step"] == step)]
                assert list(trace.y) == pytest.approx(here["value"].tolist(), rel=1e-4)
    last = [figure.data[place] for place in figure.frames[-1].traces]
    assert [list(trace.y) for trace in figure.frames[-1].data] == [list(t.y) for t in last]
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["10", "50", "100"]


def test_changes_are_hollow_where_none_can_be_told(found):
    figure = plot("track_changes").draw(found)
    table = found.tables["changes"]
    distance = table[table["metric"] == "distance"]
    told = distance[(distance["low"] > 0) | (distance["high"] < 0)]
    marks = [trace for trace in figure.data if trace.yaxis == "y"]
    by_name = {trace.name: trace for trace in marks}
    assert list(by_name["interval without zero"].y) == told["change"].tolist()
    bars = by_name["interval without zero"].error_y
    assert list(bars.array) == pytest.approx((told["high"] - told["change"]).tolist())
    assert len(by_name["interval with zero"].y) == 7 - len(told)
    assert by_name["interval with zero"].marker.color == "#FFFFFF"


def test_uneven_steps_stand_equally_far_apart():
    even, uneven = (track(run(steps)) for steps in ((1, 2, 4), (1, 2, 100)))
    assert [*axis(even, 3).place.values()] == [1, 2, 4]
    assert [*axis(uneven, 3).place.values()] == [0, 1, 2]
    assert axis(uneven, 3).names == ["1", "2", "100"]


def test_named_steps_leave_room_for_each_other():
    found = track(run(range(1, 31), layers=1, images=4))
    names = axis(found, 7).names
    assert names[0] == "1"
    assert names[-1] == "30"
    assert 4 <= len(names) <= 7


def test_the_page_says_what_changed_and_what_it_was_made_from(page, found):
    shown = words(page)
    assert "Attention distance changed most in layers 1 to 4" in shown
    assert "told by the numbers in the names of the checkpoints" in shown
    assert "paired permutation test" in shown
    assert "every layer mean lies within the 95 % interval of the last one" in shown
    assert "No test was run" not in shown
    for result in found.results:
        assert result.model["source"] in shown
    sections = [a["id"] for tag, a in read(page).elements if tag == "section"]
    metrics = ["distance", "entropy", "head_kl", "prefix_mass", "cka_last"]
    own = ["movie", "changes", "overview", *metrics]
    assert sections[: len(own) + 1] == [*own, "checkpoints"]


def test_the_page_holds_every_number_and_every_frame(page, found):
    held = payload(page)
    assert set(held["figures"]) >= {"track_movie", "track_map", "track_changes"}
    movie = held["figures"]["track_movie"]
    assert [frame["name"] for frame in movie["frames"]] == ["10", "50", "100"]
    assert not {"sliders", "updatemenus"} & set(movie["layout"])
    table = held["tables"]["distance_by_layer"]
    assert table["columns"][:3] == ["epoch", "layer (from 1)", "value"]
    expected = means(found, "distance")
    assert [row[:3] for row in table["rows"]] == [
        [step, layer + 1, value]
        for step, layer, value in expected[["step", "layer", "value"]].itertuples(index=False)
    ]
    heads = found.tables["track_heads"]
    assert len(held["tables"]["distance_by_head"]["rows"]) == (heads["metric"] == "distance").sum()
    cells = {attrs.get("data-value") for tag, attrs in read(page).elements if tag == "td"}
    assert set(map(str, found.tables["changes"]["change"])) <= cells


def test_hostile_text_stays_text():
    named = [
        replace(checkpoint(part, name=HOSTILE + str(part)), name=HOSTILE + str(part))
        for part in (0, 1)
    ]
    ours = read(render(track(named, steps=(1, 2), name=HOSTILE)))
    theirs = read(render(track(run((1, 2)), steps=(1, 2))))
    assert len(ours.scripts) == len(theirs.scripts)
    assert not [tag for tag, attrs in ours.elements if tag == "img" or "onerror" in attrs]


def test_names_that_steer_a_terminal_or_page_are_made_legible():
    found = track(run((1, 2)), name="mine\x1b[2J\u202e")
    assert not re.search("[\x1b\u202e]", render(found))


def test_a_track_is_reported_like_a_result(found, page, tmp_path):
    path = report(found, tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == page
