"""The page of a comparison in a real browser: read, sorted, filtered, printed, by hand and key."""

import csv
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from planted import planted
from test_browser import HOSTILE, chromium, column, draw_all, visit  # noqa: F401

from attnprobe.comparison import compare
from attnprobe.report import report

pytestmark = pytest.mark.browser
FAST = {"resamples": 1000, "permutations": 1000}


def model(seed, layers, heads, name):
    rng = np.random.default_rng(seed)
    return planted(
        name,
        distance=40.0 + 2 * seed + 4 * np.arange(layers)[:, None] + np.arange(heads),
        features=[rng.normal(size=(40, 12)) for _ in range(layers)],
        images=40,
        seed=seed,
    )


@pytest.fixture(scope="module")
def comparisons():
    pair = [model(0, 12, 12, "first"), model(1, 12, 12, "second")]
    uneven = [model(0, 6, 6, "base"), model(1, 9, 8, "large")]
    many = [model(seed, 4 + seed % 2, 3, f"{HOSTILE}{seed}") for seed in range(8)]
    return {
        "pair": compare(pair, thresholds={"local": 0.9}, **FAST),
        "uneven": compare(uneven, **FAST),
        "many": compare(many, **FAST),
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory, comparisons):
    folder = tmp_path_factory.mktemp("pages")
    return {name: report(found, folder / f"{name}.html") for name, found in comparisons.items()}


@pytest.mark.parametrize("name", ["pair", "uneven", "many"])
def test_every_figure_draws_and_nothing_is_said(visit, name):  # noqa: F811
    page = visit(name)
    draw_all(page)
    for figure in ("differences", "head_sets", "cross_cka", "running", "profiles"):
        assert page.locator(f"[data-figure={figure}] .main-svg").count() > 0


def test_verdicts_come_first_with_words_marks_and_numbers(visit, comparisons):  # noqa: F811
    page = visit("pair")
    assert page.locator("main > section").first.get_attribute("id") == "verdicts"
    table = comparisons["pair"].tables["verdicts"]
    cells = page.locator(".verdicts td .verdict").all_inner_texts()
    assert len(cells) == (table.model_b < 0).sum()
    assert {*cells} <= {"supported", "contradicted", "not decided"}
    shown = page.locator("#verdicts").inner_text()
    for row in table.itertuples():
        assert row.evidence in shown
    statements = page.locator(".rulings p").all_inner_texts()
    assert len(statements) == (table.model_b >= 0).sum()


def test_limits_are_told_and_a_changed_one_is_marked(visit):  # noqa: F811
    page = visit("pair")
    page.get_by_text("How each claim is judged").click()
    assert page.get_by_text("local=0.9 (changed)").is_visible()
    assert page.get_by_text("collapse=0.5").is_visible()


def test_all_verdicts_are_filtered_by_keyboard_and_exported(visit, comparisons):  # noqa: F811
    page = visit("many")
    details = page.locator("details[data-later=verdicts]")
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    details.locator("tbody tr").first.wait_for()
    details.locator("[data-filter]").focus()
    page.keyboard.type("models_alike")
    assert len(column(page, 1, "verdicts")) == 28
    with page.expect_download() as download:
        details.locator("[data-csv]").click()
    rows = list(csv.DictReader(StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert len(rows) == 28
    table = comparisons["many"].tables["verdicts"].query("claim == 'models_alike'")
    assert sorted(float(row["value"]) for row in rows) == pytest.approx(sorted(table.value))
    assert any(HOSTILE in row["statement"] for row in rows)


def test_differences_sort_and_name_their_units(visit):  # noqa: F811
    page = visit("pair")
    head = page.locator("[data-table=overall] th[data-column=difference]")
    head.get_by_role("button").click()
    at = 1 + page.evaluate("head => head.cellIndex", head.element_handle())
    values = [float(value) for value in column(page, at, "overall")]
    assert values == sorted(values)
    assert "nats" in column(page, 1 + units_at(page), "overall")


def units_at(page):
    head = page.locator("[data-table=overall] th[data-column=in]")
    return page.evaluate("head => head.cellIndex", head.element_handle())


@pytest.mark.parametrize(
    "name", ["pair", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uneven", "many"))]
)
def test_phone_width_never_scrolls_sideways(visit, name):  # noqa: F811
    page = visit(name, viewport={"width": 390, "height": 800})
    draw_all(page)
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_panels_of_unlike_models_are_equally_wide(visit):  # noqa: F811
    page = visit("uneven")
    page.locator("[data-figure=distance] .main-svg").first.wait_for()
    boxes = [
        page.locator(
            f"[data-figure=distance] .{name} .gridlayer, [data-figure=distance] .{name}"
        ).first.bounding_box()["width"]
        for name in ("xy", "x2y2")
    ]
    assert boxes[0] == pytest.approx(boxes[1], rel=0.15)


def test_bibtex_is_copied(visit):  # noqa: F811
    page = visit("pair", permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("[data-copy]")
    button.click()
    page.get_by_text("Copied").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("@software{attnprobe")
    assert "benjamini1995controlling" in text
    assert text.count("@") >= 4


def test_prints_the_verdicts(visit):  # noqa: F811
    page = visit("pair", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".verdicts").is_visible()
    ink = page.locator(".verdict.open, .verdict.no, .verdict.yes").first
    assert ink.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_hostile_names_are_shown_as_they_are(visit):  # noqa: F811
    page = visit("many")
    names = page.locator(".verdicts thead th").all_inner_texts()[1:]
    assert names == [f"{HOSTILE}{seed}" for seed in range(8)]
