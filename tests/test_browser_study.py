"""The page of a study in a real browser: silent, without requests, readable on a phone."""

import pytest
from test_browser import HOSTILE, chromium, draw_all, visit  # noqa: F401 - fixtures
from test_study import write_study

from attnprobe.report import report

pytestmark = pytest.mark.browser
METHODS = ["SimMIM", "MAE", "Supervised", "MoCo v3"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    begun = {"finished": False, "scored": False, "model": HOSTILE}
    return {
        "one": report(write_study(folder / "one"), folder / "one.html"),
        "begun": report(write_study(folder / "begun", **begun), folder / "begun.html"),
    }


def test_every_figure_draws_with_a_panel_a_method(visit):  # noqa: F811
    page = visit()
    draw_all(page)
    titles = page.locator("[data-figure=distance] .annotation-text").all_text_contents()
    assert titles == METHODS
    panels = page.locator("[data-figure=distance] .cartesianlayer .subplot").all()
    assert len(panels) == len(METHODS)
    for name in ("study_drops", "study_emergence"):
        assert page.locator(f"[data-figure={name}] .main-svg").count() > 0
    assert page.locator(".statements .verdict.yes").count() >= 28


def test_a_study_that_began_says_what_is_missing(visit):  # noqa: F811
    page = visit("begun")
    draw_all(page)
    assert page.locator(".statements .verdict.open").count() == 29
    assert page.get_by_text("trainings/mae-seed0: interrupted, epoch 3 of 10").is_visible()
    assert HOSTILE in page.locator(".lede").first.inner_text()


@pytest.mark.parametrize("name", ["one", "begun"])
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_phone_width_shows_statement_numbers_and_verdict(visit, name, scheme):  # noqa: F811
    page = visit(name, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    row = page.locator(".statements tbody tr").nth(1)
    for cell in row.locator("td").all():
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_without_a_script_the_findings_are_there(visit):  # noqa: F811
    page = visit(java_script_enabled=False)
    assert page.get_by_text("SimMIM is local in every layer.").is_visible()
    assert page.locator(".statements .verdict").first.is_visible()
