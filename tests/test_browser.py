"""The page in a real browser: silent console, no requests, tables that obey hand and key."""

import csv
import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
from synthetic import synthetic_result

from attnprobe.report import report

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "</script><script>alert(1)</script>\"'<b>ü</b>"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One model, and three with hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    several = [synthetic_result(f"{HOSTILE}{n}", seed=n, layers=3 + n) for n in range(3)]
    return {
        "one": report([synthetic_result(layers=12, heads=12)], folder / "one.html"),
        "several": report(several, folder / "several.html"),
    }


@pytest.fixture
def visit(chromium, pages):
    """Open a page; what the browser said and asked for is checked when the test ends."""
    contexts, said, asked = [], [], []

    def opened(name="one", **options):
        options.setdefault("viewport", {"width": 1200, "height": 900})
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(pages[name].as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not re.match(r"file:|blob:|data:", url)] == []
    assert sum(url.startswith("file:") for url in asked) == len(contexts)


def draw_all(page):
    for place in page.locator("[data-figure]").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for()


def column(page, at, table="distance_by_layer"):
    cells = page.locator(f"[data-table={table}] tbody tr:visible td:nth-child({at})")
    return [cell.get_attribute("data-value") for cell in cells.all()]


@pytest.mark.parametrize("name", ["one", "several"])
def test_every_figure_draws_without_a_word_or_a_request(visit, name):
    page = visit(name)
    draw_all(page)
    assert page.locator("[data-figure] .main-svg").count() >= page.locator("figure").count()
    assert page.locator(".modebar-btn--logo, a[href*='plotly']").count() == 0


@pytest.mark.parametrize("name", ["distance", "cka", "head_kl_pairs"])
def test_figures_offer_saving_and_zooming_but_no_upload(visit, name):
    page = visit()
    page.locator(f"[data-figure={name}]").scroll_into_view_if_needed()
    page.locator(f"[data-figure={name}] .main-svg").first.wait_for()
    bar = page.locator(f"[data-figure={name}] .modebar-btn")
    titles = {button.get_attribute("data-title") for button in bar.all()}
    assert len(titles) == 6
    assert not {title for title in titles if re.search("share|cloud|edit|link", title, re.I)}
    before = page.url
    with page.expect_download() as download:
        bar.first.click(force=True)
    assert download.value.suggested_filename == f"{name}.svg"
    assert page.url == before


@pytest.mark.parametrize("name", ["one", "several"])
def test_every_figure_is_drawn_without_scrolling(visit, name):
    page = visit(name)
    for place in page.locator("[data-figure]").all():
        place.locator(".main-svg").first.wait_for(timeout=5000)
    assert page.evaluate("window.scrollY") == 0


def test_a_dot_a_head_is_on_the_screen(visit):
    page = visit()
    page.locator("[data-figure=distance] .main-svg").first.wait_for()
    dots = page.locator("[data-figure=distance] .scatterlayer .points path")
    assert dots.count() == 12 * 12 + 12


def test_hostile_names_are_shown_as_they_are(visit):
    page = visit("several")
    assert page.locator(".summaries h2").first.inner_text() == f"{HOSTILE}0"
    page.locator("[data-figure=distance]").scroll_into_view_if_needed()
    page.locator("[data-figure=distance] .main-svg").first.wait_for()
    title = page.locator("[data-figure=distance] .annotation-text").first.text_content()
    assert title == f"{HOSTILE}0"[:27] + "…"


def test_sorts_by_click_and_again_the_other_way(visit):
    page = visit()
    head = page.locator("[data-table=distance_by_layer] th[data-column=value]")
    before = [float(value) for value in column(page, 2)]
    head.get_by_role("button").click()
    assert [float(value) for value in column(page, 2)] == sorted(before)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert [float(value) for value in column(page, 2)] == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_sorts_by_keyboard(visit, key):
    page = visit()
    page.locator("[data-table=distance_by_layer] [data-csv]").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.dataset.column") == "value":
            break
    page.keyboard.press(key)
    values = [float(value) for value in column(page, 2)]
    assert values == sorted(values)
    assert values != [float(value) for value in reversed(column(page, 2))]


def test_opens_filters_and_exports_a_longer_table(visit):
    page = visit()
    details = page.locator("details[data-later=distance]")
    details.locator("summary").click()
    details.locator("tbody tr").first.wait_for()
    assert len(column(page, 1, "distance")) == 144
    details.locator("[data-filter]").fill("12")
    kept = len(column(page, 1, "distance"))
    assert 0 < kept < 144
    assert details.locator("[data-count]").inner_text() == f"{kept} of 144 rows"
    with page.expect_download() as download:
        details.locator("[data-csv]").click()
    rows = list(csv.DictReader(StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert download.value.suggested_filename == "distance.csv"
    assert len(rows) == kept
    table = synthetic_result(layers=12, heads=12).tables["distance"].set_index(["layer", "head"])
    for row in rows:
        key = int(row["layer (from 1)"]) - 1, int(row["head (from 1)"]) - 1
        assert float(row["value"]) == table.value[key]


def test_figures_are_saved_as_svg_and_png(visit):
    page = visit()
    page.locator("[data-figure=distance] .main-svg").first.wait_for()
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as download:
            page.locator(f"[data-image={kind}][data-of=distance]").click()
        assert download.value.suggested_filename == f"distance.{kind}"
        assert Path(download.value.path()).read_bytes().startswith(start)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_and_figures_follow_the_colour_scheme(visit, scheme):
    playwright = pytest.importorskip("playwright.sync_api")
    page = visit(color_scheme="light" if scheme == "dark" else "dark")
    page.locator("[data-figure=distance] .main-svg").first.wait_for()
    page.emulate_media(color_scheme=scheme)
    paper = page.locator("[data-figure=distance] .main-svg").first
    hue = {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 27, 33)"}[scheme]
    playwright.expect(paper).to_have_css("background-color", hue)
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (sum(map(int, re.findall(r"\d+", ink))) > 384) == (scheme == "dark")


@pytest.mark.parametrize("name", [pytest.param("one", marks=pytest.mark.slow), "several"])
def test_phone_width_never_scrolls_sideways(visit, name):
    page = visit(name, viewport={"width": 390, "height": 800})
    draw_all(page)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_wide_cards_say_that_they_scroll(visit):
    page = visit(viewport={"width": 390, "height": 800})
    draw_all(page)
    place = page.locator(".scroll:has([data-figure=head_kl_pairs])")
    hint = "place => getComputedStyle(place, '::before').content"
    assert "Scroll sideways" in place.evaluate(hint)
    bar = page.locator("[data-figure=head_kl_pairs] .colorbar").bounding_box()
    assert bar["x"] >= 0
    assert bar["x"] + bar["width"] <= 390
    assert place.evaluate("place => place.classList.contains('more')")
    place.evaluate("place => { place.scrollLeft = place.scrollWidth; }")
    page.wait_for_function("place => !place.classList.contains('more')", arg=place.element_handle())
    assert "Scroll sideways" in place.evaluate(hint)
    narrow = page.locator(".scroll:has([data-figure=distance])")
    assert narrow.evaluate(hint) == "none"


def test_prints_every_figure_on_white(visit):
    page = visit(color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    for place in page.locator("[data-figure]").all():
        place.locator(".main-svg").first.wait_for(state="attached")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
