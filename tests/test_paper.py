"""Figures for a paper: inches and points, panels in their place, nothing cut or overlapping."""

import math

import plotly.graph_objects as go
import pytest
from synthetic import synthetic_result

from attnprobe import plugins
from attnprobe.errors import AttnprobeError
from attnprobe.publication import paper
from attnprobe.publication.paper import INCH, typeset


def plot(name):
    return plugins.load("attnprobe.plots", name, "PLOT")


def several(count, **options):
    return [synthetic_result(f"model {n}", seed=n, **options) for n in range(count)]


def drawn(name, results, **look):
    return typeset(plot(name).draw(results), paper(**look))


def panels(figure):
    """Left, right, bottom and top of every panel, in inches from the bottom left."""
    layout, margin = figure["layout"], figure["layout"]["margin"]
    wide = layout["width"] - margin["l"] - margin["r"]
    high = layout["height"] - margin["t"] - margin["b"]
    found = []
    for key, x in layout.items():
        if key.startswith("xaxis") and x.get("visible") is not False:
            y = layout["yaxis" + x["anchor"][1:]]
            across = [(margin["l"] + end * wide) / INCH for end in x["domain"]]
            down = [(margin["b"] + end * high) / INCH for end in y["domain"]]
            found.append((*across, *down))
    return found


@pytest.mark.parametrize(("width", "inches"), [("column", 3.25), ("text", 6.75), ("5", 5.0)])
def test_widths_and_type_are_in_inches_and_points(width, inches):
    layout = drawn("distance", several(2), width=width, size=9)["layout"]
    assert layout["width"] == pytest.approx(inches * 96)
    assert layout["template"]["layout"]["font"]["size"] == pytest.approx(12)  # 9 pt
    assert layout["template"]["layout"]["font"]["color"] == "#000000"
    assert layout["template"]["layout"]["paper_bgcolor"] == "#FFFFFF"


@pytest.mark.parametrize(
    ("look", "remedy"),
    [
        ({"width": "50"}, "column, text"),
        ({"width": "wide"}, "column, text"),
        ({"width": math.nan}, "column, text"),
        ({"size": 2}, "5 to 24 points"),
        ({"size": math.nan}, "5 to 24 points"),
        ({"font": "x; } <script>"}, "serif, sans"),
        ({"font": ""}, "serif, sans"),
    ],
)
def test_what_paper_cannot_be(look, remedy):
    with pytest.raises(AttnprobeError, match=remedy):
        paper(**look)


def test_any_family_can_be_the_font():
    assert paper(font="Fira Sans").font == "Fira Sans, serif"


@pytest.mark.parametrize(
    ("count", "width", "columns"),
    [(1, "column", 1), (2, "column", 2), (3, "text", 3), (8, "text", 4), (8, "column", 2)],
)
@pytest.mark.parametrize("name", ["distance", "cka"])
def test_panels_take_as_many_columns_as_the_width_has_room_for(name, count, width, columns):
    figure = drawn(name, several(count, layers=12), width=width)
    found = panels(figure)
    assert len({round(left, 3) for left, *_ in found}) == columns
    assert len(found) == count
    assert all(right - left > 0.85 and top - bottom > 0.85 for left, right, bottom, top in found)


@pytest.mark.parametrize("width", ["column", "text"])
@pytest.mark.parametrize("name", ["distance", "prefix_mass", "cka", "profiles", "head_kl_pairs"])
def test_panels_neither_overlap_nor_leave_the_page(name, width):
    figure = drawn(name, several(5, layers=7), width=width)
    page = figure["layout"]["width"] / INCH, figure["layout"]["height"] / INCH
    found = panels(figure)
    for at, (left, right, bottom, top) in enumerate(found):
        assert 0 <= left < right <= page[0] + 1e-6
        assert 0 <= bottom < top <= page[1] + 1e-6
        for west, east, south, north in found[:at]:
            apart = left >= east or right <= west or bottom >= north or top <= south
            assert apart, "two panels overlap"


def test_panels_keep_their_titles_and_share_what_a_neighbour_says():
    figure = drawn("distance", several(5, layers=12), width="column")
    layout = figure["layout"]
    words = [word["text"] for word in layout["annotations"]]
    assert words == [f"model {n}" for n in range(5)]
    for word, (left, right, _, top) in zip(layout["annotations"], panels(figure), strict=True):
        wide = layout["width"] - layout["margin"]["l"] - layout["margin"]["r"]
        at = (layout["margin"]["l"] + word["x"] * wide) / INCH
        assert left < at < right
        assert top > 0
    first = ["", "3", "5"]  # of each row, though the page has three columns
    titles = {n for n in ("", "2", "3", "4", "5") if layout[f"yaxis{n}"]["title"]["text"]}
    numbers = {n for n in ("", "2", "3", "4", "5") if layout[f"yaxis{n}"]["showticklabels"]}
    assert titles == numbers == set(first)
    assert not any("title" in layout[f"xaxis{n}"] for n in ("", "2", "3"))
    assert {layout[f"xaxis{n}"]["title"]["text"] for n in ("4", "5")} == {"Layer (1 = first)"}


def test_numbers_on_axes_have_room():
    layout = drawn("distance", [synthetic_result(layers=24)], width="column")["layout"]
    printed_at = layout["xaxis"]["tickvals"]
    ((left, right, *_),) = panels({"layout": layout})
    each = (right - left) * 72 / 24 * (printed_at[1] - printed_at[0])
    assert printed_at[0] == 1
    assert each > 2 * 0.5 * 8  # two digits of 8 pt


def test_the_legend_stands_over_the_panels():
    short = drawn("distance", several(2), width="text")["layout"]["margin"]["t"]
    stacked = drawn("distance", several(2), width="column")["layout"]["margin"]["t"]
    tokens = tuple(f"register{n}" for n in range(9))
    crowd = [synthetic_result(tokens=tokens)]
    assert stacked > short + 2 * 16  # three rows of entries in place of one
    assert drawn("prefix_mass", crowd, width="column")["layout"]["margin"]["t"] > 11 * 19


def test_a_name_without_letters_takes_a_place_in_the_legend():
    margin = drawn("profiles", [synthetic_result(" "), synthetic_result("b")])["layout"]["margin"]
    assert margin["t"] > 19


def test_lines_are_finer_and_nothing_is_left_for_a_pointer():
    result = synthetic_result()
    page = plot("distance").draw([result])
    figure = typeset(page, paper())
    for trace, before in zip(figure["data"], page.data, strict=True):
        assert not any(key.startswith("hover") for key in trace)
        assert list(trace["y"]) == list(before.y)
        if before.marker.size:
            assert trace["marker"]["size"] < before.marker.size
    assert page.data[0].hoverinfo == "skip", "the page's figure is left alone"


def test_panels_of_no_known_arrangement_stay_where_they_are():
    page = go.Figure(layout={"height": 500})
    page.add_scatter(x=[1, 2], y=[3, 4], name="a")
    page.add_scatter(x=[1, 2], y=[30, 40], name="b", yaxis="y2")
    page.update_layout(xaxis={}, yaxis={}, yaxis2={"overlaying": "y", "side": "right"})
    layout = typeset(page, paper())["layout"]
    assert layout["height"] == pytest.approx(500 * 0.648, abs=1)
    assert layout["yaxis2"]["overlaying"] == "y"
    assert layout["margin"]["t"] > 16
