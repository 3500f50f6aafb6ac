"""The page of a training run in a real browser: silent, without requests, pictures by key."""

import pytest
from synthetic_training import write_run
from test_browser import HOSTILE, chromium, draw_all, visit  # noqa: F401 - fixtures

from attnprobe.report import report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    cut = {"step": 150, "probed": (0,), "evals": False, "epochs": (1,), "name": HOSTILE}
    return {
        "one": report(write_run(folder / "one"), folder / "one.html"),
        "cut": report(write_run(folder / "cut", **cut), folder / "cut.html"),
    }


def album(page):
    return page.get_by_role("group", name="Reconstructions, controls")


def shown(page):
    pictures = page.locator("img[data-epoch]:visible")
    assert pictures.count() == 1
    return pictures.first.get_attribute("data-epoch")


@pytest.mark.parametrize("name", ["one", "cut"])
def test_every_figure_and_picture_draws_and_nothing_is_said(visit, name):  # noqa: F811
    page = visit(name)
    draw_all(page)
    for figure in ("training_loss", "training_rate"):
        assert page.locator(f"[data-figure={figure}] .main-svg").count() > 0
    widths = "[...document.querySelectorAll('img[data-epoch]')].map(i => i.naturalWidth)"
    assert set(page.evaluate(widths)) == {96}


def test_pictures_obey_slider_keys_and_arrows(visit):  # noqa: F811
    page = visit()
    box = album(page)
    slider = box.get_by_role("slider")
    assert shown(page) == "10"
    slider.focus()
    page.keyboard.press("Home")
    assert shown(page) == "1"
    assert slider.get_attribute("aria-valuetext") == "Epoch 1"
    assert box.get_by_role("button", name="Previous epoch").is_disabled()
    page.keyboard.press("ArrowRight")
    assert shown(page) == "2"
    box.get_by_role("button", name="Next epoch").click()
    assert shown(page) == "5"
    assert box.locator("output").inner_text() == "Epoch 5"
    box.get_by_role("button", name="Next epoch").press("Enter")
    assert shown(page) == "10"
    assert box.get_by_role("button", name="Next epoch").is_disabled()


def test_a_single_picture_has_no_controls_and_a_name_is_text(visit):  # noqa: F811
    page = visit("cut")
    assert shown(page) == "1"
    assert page.locator("[data-pictures]").is_hidden()
    assert page.locator("h1").inner_text() == HOSTILE


def test_without_a_script_the_last_picture_and_the_words_are_there(visit):  # noqa: F811
    page = visit(java_script_enabled=False)
    assert shown(page) == "10"
    assert page.get_by_text("The run is finished").is_visible()


@pytest.mark.parametrize("name", ["one", "cut"])
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_phone_width_never_scrolls_sideways(visit, name, scheme):  # noqa: F811
    page = visit(name, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if name == "one":
        box = album(page).bounding_box()
        for part in album(page).locator("button, input, output").all():
            inside = part.bounding_box()
            assert box["x"] <= inside["x"]
            assert inside["x"] + inside["width"] <= box["x"] + box["width"]


def test_prints_the_picture_that_is_shown_with_its_epoch(visit):  # noqa: F811
    page = visit()
    album(page).get_by_role("button", name="Previous epoch").click()
    page.emulate_media(media="print")
    assert shown(page) == "5"
    assert album(page).locator("output").is_visible()
    assert album(page).locator("button").first.is_hidden()


def test_the_command_and_the_configuration_can_be_copied(visit):  # noqa: F811
    page = visit()
    button = page.get_by_role("button", name="Copy command")
    button.click()
    told = page.locator("button", has_text="Copied").or_(page.get_by_text("Marked"))
    told.wait_for(timeout=5000)  # the clipboard answers when it likes
    text = page.locator("pre[aria-label=Command]").bounding_box()
    assert text["x"] + text["width"] >= button.bounding_box()["x"]
