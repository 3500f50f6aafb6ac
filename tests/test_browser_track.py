"""The page of a track in a real browser: its movie by hand and key, still until it is asked."""

import csv
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from test_browser import HOSTILE, chromium, column, draw_all, visit  # noqa: F401 - fixtures
from tracks import run, with_cka

from attnprobe.report import report
from attnprobe.tracking import track

pytestmark = pytest.mark.browser
STEPS = (10, 20, 50, 100)
PHONE = {"width": 390, "height": 800}
HEADS = "[data-figure=track_movie] .scatterlayer .trace:has(.points path)"


@pytest.fixture(scope="module")
def found():
    return track([with_cka(result) for result in run(STEPS, layers=4)], name="mine")


@pytest.fixture(scope="module")
def pages(tmp_path_factory, found):
    return {"one": report(found, tmp_path_factory.mktemp("pages") / "one.html")}


@pytest.fixture(scope="module")
def many(tmp_path_factory, pages):
    found = track(run(range(1, 31), layers=24, heads=16, images=10), name=HOSTILE)
    pages["many"] = report(found, tmp_path_factory.mktemp("pages") / "many.html")


def movie(page):
    page.locator("[data-figure=track_movie] .main-svg").first.wait_for()
    return page.locator("[data-movie=track_movie]")


def shown(page):
    """Values of the heads' dots of the first metric as they are drawn now."""
    return page.evaluate(
        "document.querySelector('[data-figure=track_movie]')._fullData"
        ".find(trace => trace.name === 'one head').y.map(Number)"
    )


def expected(found, step):
    heads = found.tables["track_heads"]
    here = heads[(heads["metric"] == "distance") & (heads["step"] == step)]
    return pytest.approx(here["value"].tolist(), rel=1e-4)


def where(page):
    """Heights at which the dots of the first metric are on the screen."""
    return page.evaluate(
        "[...document.querySelectorAll('[data-figure=track_movie] .xy .points path')]"
        ".map(dot => dot.getBoundingClientRect().y)"
    )


def settled(page):
    """Wait until nothing on the figure moves any more, and return where the dots are."""
    before = None
    while before != (now := where(page)):
        before = now
        page.wait_for_timeout(120)
    return now


def test_every_figure_draws_and_nothing_is_said(visit):  # noqa: F811
    every_figure_draws(visit())


@pytest.mark.slow
def test_a_long_track_of_a_deep_model_draws(visit, many):  # noqa: F811
    every_figure_draws(visit("many"))
    fits_a_phone(visit("many", viewport=PHONE))


def every_figure_draws(page):
    draw_all(page)
    for figure in ("track_movie", "track_changes", "track_map", "track_layers_distance"):
        assert page.locator(f"[data-figure={figure}] .main-svg").count() > 0
    assert page.locator(".updatemenu-button, .slider-rail-rect").count() == 0


def test_nothing_moves_before_it_is_asked_to(visit, found):  # noqa: F811
    page = visit()
    box = movie(page)
    before = settled(page)
    page.wait_for_timeout(1500)
    assert where(page) == before
    assert box.locator("output").inner_text() == "Epoch 100"
    assert shown(page) == expected(found, 100)


def test_arrows_step_through_the_checkpoints_and_stop_at_the_ends(visit, found):  # noqa: F811
    page = visit()
    box = movie(page)
    back, on = box.locator("[data-go=back]"), box.locator("[data-go=on]")
    assert on.is_disabled()
    heights = [settled(page)]
    for step in (50, 20, 10):
        back.click()
        heights.append(settled(page))
        assert box.locator("output").inner_text() == f"Epoch {step}"
        assert shown(page) == expected(found, step)
    assert back.is_disabled()
    # distance falls in the first two layers of four, three heads each: earlier is higher
    for later, earlier in pairwise(heights):
        assert all(a > b for a, b in zip(later[:6], earlier[:6], strict=True))
    on.click()
    assert settled(page) == pytest.approx(heights[2], abs=0.5)


def test_the_slider_obeys_the_keyboard_and_says_where_it_is(visit, found):  # noqa: F811
    page = visit()
    slider = movie(page).get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    settled(page)
    assert slider.get_attribute("aria-valuetext") == "Epoch 10"
    assert shown(page) == expected(found, 10)
    page.keyboard.press("ArrowRight")
    settled(page)
    assert slider.get_attribute("aria-valuetext") == "Epoch 20"
    assert shown(page) == expected(found, 20)


def test_plays_from_the_start_by_key_pauses_and_ends_at_the_last(visit, found):  # noqa: F811
    playwright = pytest.importorskip("playwright.sync_api")
    page = visit()
    box = movie(page)
    play = box.locator("[data-go=play]")
    play.focus()
    page.keyboard.press("Enter")
    assert play.inner_text() == "Pause"
    output = playwright.expect(box.locator("output"))
    output.to_have_text("Epoch 20")
    page.keyboard.press("Space")
    assert play.inner_text() == "Play"
    settled(page)
    page.wait_for_timeout(900)
    assert box.locator("output").inner_text() == "Epoch 20"
    play.click()
    output.to_have_text("Epoch 100")
    settled(page)
    assert shown(page) == expected(found, 100)
    playwright.expect(play).to_have_text("Play")


def test_with_less_motion_steps_are_taken_at_once(visit, found):  # noqa: F811
    page = visit(reduced_motion="reduce")
    box = movie(page)
    settled(page)
    box.locator("[data-go=back]").click()
    page.wait_for_timeout(60)
    at_once = where(page)
    assert settled(page) == pytest.approx(at_once, abs=0.5)
    assert shown(page) == expected(found, 50)


def test_a_change_of_colours_keeps_the_checkpoint(visit, found):  # noqa: F811
    playwright = pytest.importorskip("playwright.sync_api")
    page = visit(color_scheme="light")
    box = movie(page)
    box.locator("[data-go=back]").click()
    settled(page)
    page.emulate_media(color_scheme="dark")
    paper = page.locator("[data-figure=track_movie] .main-svg").first
    playwright.expect(paper).to_have_css("background-color", "rgb(23, 27, 33)")
    settled(page)
    assert shown(page) == expected(found, 50)
    assert box.locator("output").inner_text() == "Epoch 50"
    fills = page.evaluate(
        "[...document.querySelectorAll('[data-figure=track_movie] .xy .points path')]"
        ".map(dot => dot.style.fill)"
    )
    assert "rgb(77, 168, 224)" in fills
    assert "rgb(0, 114, 178)" not in fills


def test_changes_sort_and_longer_tables_open_and_export(visit, found):  # noqa: F811
    page = visit()
    head = page.locator("[data-table=distance_changes] th[data-column=change]")
    head.get_by_role("button").click()
    values = [float(value) for value in column(page, 4, "distance_changes")]
    table = found.tables["changes"]
    assert values == sorted(table[table["metric"] == "distance"]["change"])
    details = page.locator("details[data-later=distance_by_head]")
    details.locator("summary").click()
    with page.expect_download() as download:
        details.locator("[data-csv]").click()
    lines = list(csv.DictReader(StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert len(lines) == 4 * 4 * 3
    assert set(lines[0]) == {"epoch", "layer (from 1)", "head (from 1)", "value"}


def test_phone_width_never_scrolls_sideways(visit):  # noqa: F811
    fits_a_phone(visit(viewport=PHONE))


def fits_a_phone(page):
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = movie(page).bounding_box()
    for part in movie(page).locator("button, input, output").all():
        inside = part.bounding_box()
        assert box["x"] <= inside["x"]
        assert inside["x"] + inside["width"] <= box["x"] + box["width"]


def test_prints_the_checkpoint_that_is_shown(visit, found):  # noqa: F811
    page = visit(color_scheme="dark")
    box = movie(page)
    box.locator("[data-go=back]").click()
    settled(page)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert box.locator("output").is_visible()
    assert box.locator("button").first.is_hidden()
    settled(page)
    assert shown(page) == expected(found, 50)
