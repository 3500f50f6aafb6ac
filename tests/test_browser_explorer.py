"""Linked views in a real browser: heads by hand and key, patches on images, windows, files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import synthetic_result
from synthetic_maps import SHIFTED, SWIN, VIT, with_maps
from test_browser import HOSTILE, chromium, visit  # noqa: F401 - fixtures

from attnprobe import maps
from attnprobe.report import report
from attnprobe.report.explorer import explorer
from attnprobe.types import TokenGrid

pytestmark = pytest.mark.browser
PANELS = "[...document.querySelectorAll('[data-panel]')]"
LEGEND = "() => document.querySelector('[data-legend] text').textContent"
TIMES = "\N{MULTIPLICATION SIGN}"
COARSE = TokenGrid(7, 7, (32.0, 32.0), 0, (7, 7))
OBLONG = TokenGrid(8, 12, (28.0, 18.0), 0, (4, 6), (2, 3))
UNUSUAL = TokenGrid(8, 12, (28.0, 18.0), 0, (4, 6), (0, 3))


def results():
    vit = with_maps(synthetic_result("vit", layers=4, images=20), [VIT] * 4, seed=1)
    grids = [SWIN, SHIFTED, COARSE, OBLONG, UNUSUAL]
    swin = with_maps(synthetic_result(f"{HOSTILE} swin", layers=5, heads=4), grids, seed=2)
    return [vit, swin]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorers")
    vit, swin = results()
    elsewhere = replace(swin, images=swin.images.assign(id=[HOSTILE] * len(swin.images)))
    return {
        "one": report([vit], folder / "one.html"),
        "two": report([vit, swin], folder / "two.html"),
        "apart": report([vit, elsewhere], folder / "apart.html"),
        "bare": report([synthetic_result(layers=12, heads=12)], folder / "bare.html"),
        "deep": report(
            [vit, synthetic_result("deep" * 30, layers=24, heads=16)], folder / "deep.html"
        ),
    }


def open_views(visit, name="two", **options):  # noqa: F811
    page = visit(name, **options)
    page.locator("#explore").scroll_into_view_if_needed()
    page.wait_for_function(f"() => {PANELS}.every((box) => box.dataset.shown)")
    return page


def shown(page, panel=0):
    """Model, layer, head, image and query that a panel has drawn."""
    text = page.locator("[data-panel]").nth(panel).get_attribute("data-shown")
    return [int(part) if part else None for part in text.split(",")]


def until(page, panel, expected):
    text = ",".join("" if part is None else str(part) for part in expected)
    page.locator(f"[data-panel][data-shown='{text}']").nth(0).wait_for(timeout=5000)
    assert shown(page, panel) == list(expected)


def choose(page, panel, **changes):
    page.evaluate("([n, change]) => explorer.choose(n, change)", [panel, changes])
    spot = [changes[name] for name in ("model", "layer", "head")]
    starts(page, panel, ",".join(map(str, spot)) + ",")


def starts(page, panel, text):
    page.wait_for_function(
        f"([n, text]) => {PANELS}[n].dataset.shown?.startsWith(text)", arg=[panel, text]
    )


def picture(page, panel, name="picture"):
    return page.evaluate(
        "([n, name]) => document.querySelectorAll(`[data-${name}]`)[n].toDataURL()", [panel, name]
    )


def cell(page, panel, layer, head):
    place = page.locator("[data-panel]").nth(panel)
    return place.locator(f"[role=gridcell][data-layer='{layer}'][data-head='{head}']")


def test_a_head_is_chosen_by_click_and_seen_in_the_grid(visit):  # noqa: F811
    page = open_views(visit)
    before = picture(page, 0), picture(page, 1)
    image, query = shown(page)[3:]
    cell(page, 0, 1, 2).click()
    until(page, 0, [0, 1, 2, image, query])
    assert cell(page, 0, 1, 2).get_attribute("aria-selected") == "true"
    assert page.locator("[data-panel] >> nth=0 >> [aria-selected=true]").count() == 1
    assert picture(page, 0) != before[0]
    assert picture(page, 1) == before[1]
    table = results()[0].tables["distance"].set_index(["layer", "head"])
    value = f"{table.value[(1, 2)]:.3g}"
    assert f"{value} px" in page.locator("[data-numbers]").first.inner_text()
    assert cell(page, 0, 1, 2).get_attribute("aria-label").startswith("layer 2, head 3: ")


def test_a_head_is_chosen_by_keyboard_alone(visit):  # noqa: F811
    page = open_views(visit)
    model, layer, head, *rest = shown(page, 1)
    page.locator("[data-panel] >> nth=1 >> [data-choice=head]").focus()
    page.keyboard.press("Tab")
    here = "[document.activeElement.dataset.layer, document.activeElement.dataset.head].map(Number)"
    assert page.evaluate(here) == [layer, head]
    for key in ("ArrowUp", "Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate(here) == [layer - 1, 2]
    assert shown(page, 1)[:3] == [model, layer, head]  # moving alone chooses nothing
    page.keyboard.press("Enter")
    until(page, 1, [model, layer - 1, 2, rest[0], shown(page, 1)[4]])
    assert page.evaluate(here) == [layer - 1, 2]
    assert page.locator("[data-panel] >> nth=1 >> [role=gridcell][tabindex='0']").count() == 1


def test_lists_choose_model_layer_and_head(visit):  # noqa: F811
    page = open_views(visit)
    first = page.locator("[data-panel]").first
    first.locator("[data-choice=model]").select_option(index=1)
    first.locator("[data-choice=layer]").select_option(index=4)
    first.locator("[data-choice=head]").select_option(index=3)
    starts(page, 0, "1,4,3,")
    first.locator("[data-choice=model]").select_option(index=0)
    # the smaller model has no such layer and head, its last ones are shown
    starts(page, 0, "0,3,2,")
    assert first.locator("[data-choice=layer]").input_value() == "3"
    assert first.locator("[data-choice=model] option").nth(1).inner_text() == f"{HOSTILE} swin"


@pytest.mark.parametrize(("keys", "panel"), [([], 0), (["Shift"], 1)])
@pytest.mark.parametrize("figure", ["distance", "entropy", "head_kl"])
def test_a_dot_of_a_figure_chooses_its_head(visit, figure, keys, panel):  # noqa: F811
    page = visit("two")
    place = page.locator(f"[data-figure={figure}]")
    place.scroll_into_view_if_needed()
    place.locator(".main-svg").first.wait_for()
    spot = page.evaluate(
        """name => {
          const place = document.querySelector(`[data-figure=${name}]`);
          const at = place.data.findLastIndex(({ customdata }) => customdata);
          const dot = place.data[at].customdata.findIndex(([l, h]) => l === 3 && h === 0);
          const path = place.querySelectorAll(".scatterlayer .trace.scatter .points")[0];
          const { _fullData: full, _fullLayout: layout } = place;
          const x = layout[full[at].xaxis.replace("x", "xaxis")];
          const y = layout[full[at].yaxis.replace("y", "yaxis")];
          const box = place.getBoundingClientRect();
          return [
            box.left + x._offset + x.l2p(place.data[at].x[dot]),
            box.top + y._offset + y.l2p(place.data[at].y[dot]),
          ];
        }""",
        figure,
    )
    for key in keys:
        page.keyboard.down(key)
    page.mouse.move(*spot)
    page.mouse.click(*spot)
    starts(page, panel, "1,3,0,")
    assert cell(page, panel, 3, 0).get_attribute("aria-selected") == "true"
    told = place.locator("xpath=ancestor::figure").locator(".sent")
    assert f"Panel {'AB'[panel]} now shows {HOSTILE} swin, layer 4, head 1" in told.inner_text()


def test_a_clicked_patch_moves_both_panels(visit):  # noqa: F811
    page = open_views(visit)
    choose(page, 0, model=0, layer=0, head=0)
    choose(page, 1, model=1, layer=2, head=1)
    before = picture(page, 0), picture(page, 1)
    box = page.locator("[data-picture]").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 3.2 / 14, box["y"] + box["height"] * 11.7 / 14)
    # row 11, column 3 is stored; of 7 x 7 patches the one there is row 5, column 1
    until(page, 0, [0, 0, 0, 0, 11 * 14 + 3])
    until(page, 1, [1, 2, 1, 0, 5 * 7 + 1])
    assert picture(page, 0) != before[0]
    assert picture(page, 1) != before[1]
    assert f"row 12, column 4 of 14 {TIMES} 14" in page.locator("[data-status]").first.inner_text()


def test_arrow_keys_step_over_the_stored_patches(visit):  # noqa: F811
    page = open_views(visit)
    choose(page, 0, model=0, layer=0, head=0)
    choose(page, 1, model=0, layer=1, head=0)
    start = shown(page)[4]
    page.locator("[data-picture]").first.focus()
    page.keyboard.press("ArrowRight")
    until(page, 0, [0, 0, 0, 0, start + 2])
    page.keyboard.press("ArrowDown")
    until(page, 1, [0, 1, 0, 0, start + 2 + 28])
    for _ in range(9):
        page.keyboard.press("ArrowUp")
    until(page, 0, [0, 0, 0, 0, 14 + (start + 2) % 14])


def test_another_image_is_drawn_in_both_panels(visit):  # noqa: F811
    page = open_views(visit)
    before = picture(page, 0), picture(page, 1), picture(page, 0, "place")
    page.locator("[data-thumbs] input").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"() => {PANELS}.every((box) => box.dataset.shown.split(',')[3] === '1')"
    )
    assert picture(page, 0) != before[0]
    assert picture(page, 1) != before[1]
    assert picture(page, 0, "place") == before[2]  # a mean over images


def test_the_overlay_can_be_taken_off(visit):  # noqa: F811
    page = open_views(visit)
    choose(page, 0, model=0, layer=0, head=0)
    page.locator("[data-overlay]").uncheck()
    plain = picture(page, 0)
    choose(page, 0, model=0, layer=2, head=1)
    assert picture(page, 0) == plain  # the image alone does not depend on the head
    page.locator("[data-overlay]").check()
    assert picture(page, 0) != plain


def test_keys_stand_where_the_windows_are(visit):  # noqa: F811
    page = open_views(visit)
    for at, grid in enumerate([SWIN, SHIFTED, COARSE, OBLONG, UNUSUAL]):
        tokens = np.arange(grid.rows * grid.cols)
        window, inside = maps.window_of(grid, tokens)
        found = page.evaluate(
            """at => {
              const layer = explorer.models[1].layers[at];
              const count = layer.grid[0] * layer.grid[1];
              return Array.from({ length: count }, (_, n) => [...attention.keys(layer, n)]);
            }""",
            at,
        )
        token_at = {
            (int(w), int(i)): int(t) for w, i, t in zip(window, inside, tokens, strict=True)
        }
        visible = grid.visible()
        for query in tokens:
            w, i = int(window[query]), int(inside[query])
            expected = [
                token_at[w, key] if visible[w, i, key] else -1 for key in range(grid.patches)
            ]
            assert found[query] == expected


def test_values_are_those_that_were_stored(visit):  # noqa: F811
    page = open_views(visit)
    stored = maps.split(results()[1].arrays["maps"], 1)
    steps = explorer(results()).data["steps"]
    found = page.evaluate(
        """async steps => {
          const layer = explorer.models[1].layers[1];
          const opened = await attention.open(layer);
          return layer.queries.map((_, at) => [...attention.row(layer, opened, 1, 3, at, steps)]
            .map((value) => Number.isNaN(value) ? -1 : value));
        }""",
        steps,
    )
    window, inside = maps.window_of(SHIFTED, np.arange(196))
    for at, query in enumerate(stored.queries):
        values = maps.decode(stored.rows[1, 3, at].ravel())
        visible = SHIFTED.visible()[window[query], inside[query]]
        for token in range(196):
            seen = window[token] == window[query] and visible[inside[token]]
            if not seen:
                assert found[at][token] == -1
            elif values[inside[token]] > 2**-6:
                ratio = found[at][token] / values[inside[token]]
                assert abs(np.log2(ratio)) <= 0.5 / steps + 1e-6


def test_what_is_no_key_is_hatched_and_said(visit):  # noqa: F811
    page = open_views(visit)
    choose(page, 0, model=1, layer=0, head=0)
    assert (
        "hatched patches are none of its keys"
        in page.locator("[data-caption=picture]").first.inner_text()
    )
    box = page.locator("[data-picture]").first.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    assert (
        "row 1, column 1: not a key of this patch"
        in page.locator("[data-status]").first.inner_text()
    )
    choose(page, 0, model=0, layer=0, head=0)
    page.mouse.move(box["x"] + 6, box["y"] + 6)
    status = page.locator("[data-status]").first.inner_text()
    assert f"{TIMES} uniform" in status
    assert "px away" in status
    assert "hatched" not in page.locator("[data-caption=picture]").first.inner_text()


def test_colours_can_be_wider_or_fit_a_panel(visit):  # noqa: F811
    page = open_views(visit)
    legend = page.locator("[data-legend]").first
    assert legend.locator("svg text").first.text_content() == f"1/8{TIMES}"
    before = picture(page, 0)
    page.locator("[data-choice=colours]").select_option(value="6")
    page.wait_for_function(f"{LEGEND} === '1/64{TIMES}'")
    assert picture(page, 0) != before
    page.locator("[data-choice=colours]").select_option(value="own")
    page.wait_for_function(f"{LEGEND} !== '1/64{TIMES}'")


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_panel_is_saved_as_a_file(visit, kind):  # noqa: F811
    page = open_views(visit)
    choose(page, 1, model=1, layer=1, head=0)
    with page.expect_download() as download:
        page.locator(f"[data-export={kind}]").nth(1).click()
    name = download.value.suggested_filename
    data = Path(download.value.path()).read_bytes()
    assert name.endswith(f"-layer-2-head-1.{kind}")
    assert not set("<>\"'/ ") & set(name)
    if kind == "png":
        assert data.startswith(b"\x89PNG")
        width, height = np.frombuffer(data[16:24], ">u4")
        assert width == 1200
        assert height > 1000
    else:
        assert data.startswith(b"<svg")
        assert data.count(b"data:image/png;base64,") == 3
        assert b"<script" not in data


@pytest.mark.parametrize(
    "name",
    [
        "two",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("one", "deep", "bare", "apart")),
    ],
)
def test_phone_width_never_scrolls_sideways(visit, name):  # noqa: F811
    page = open_views(visit, name, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [page.locator("[data-panel]").nth(n).bounding_box() for n in range(2)]
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    for box in boxes:
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_panels_stand_side_by_side_and_in_line(visit):  # noqa: F811
    page = open_views(visit, "deep")
    boxes = [page.locator("[data-numbers]").nth(n).bounding_box() for n in range(2)]
    assert boxes[0]["x"] < boxes[1]["x"]
    assert boxes[0]["y"] == boxes[1]["y"]  # though one grid of heads is taller
    sizes = [cell(page, 1, layer, head).bounding_box() for layer, head in ((0, 0), (23, 15))]
    assert all(size["width"] >= 8 and size["height"] >= 8 for size in sizes)


def test_colours_follow_the_scheme(visit):  # noqa: F811
    page = open_views(visit, color_scheme="light")
    inks = "document.querySelector('[data-spread] text').getAttribute('fill')"
    light = page.evaluate(inks)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => {inks} !== {json.dumps(light)}")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(inks) == light
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(inks) != light


def test_cells_show_another_quantity(visit):  # noqa: F811
    page = open_views(visit, "one")
    label = cell(page, 0, 0, 0).get_attribute("aria-label")
    assert label.endswith("% of uniform")
    page.locator("[data-choice=quantity]").select_option(value="entropy")
    assert cell(page, 0, 0, 0).get_attribute("aria-label").endswith("nats")
    assert page.locator("[data-choice=model]").first.is_hidden()  # there is only one


def test_a_run_without_maps_shows_numbers_and_distances(visit):  # noqa: F811
    page = open_views(visit, "bare")
    assert "--maps 3" in page.locator("[data-absent]").first.inner_text()
    assert page.locator("[data-picture]").first.is_hidden()
    assert page.locator("[data-thumbs]").is_hidden()
    assert page.locator("[data-spread] svg").count() == 2
    cell(page, 0, 5, 5).click()
    starts(page, 0, "0,5,5,")
    with page.expect_download() as download:
        page.locator("[data-export=svg]").first.click()
    assert Path(download.value.path()).read_bytes().startswith(b"<svg")


def test_models_with_maps_of_different_images_say_so(visit):  # noqa: F811
    page = open_views(visit, "apart")
    absent = page.locator("[data-absent]")
    assert absent.first.is_hidden()
    assert absent.nth(1).inner_text() == f"{HOSTILE} swin has no maps of the image chosen here."
    assert page.locator("[data-thumbs] img").last.get_attribute("alt") == HOSTILE
    page.locator("[data-thumbs] input").last.check(force=True)
    absent.first.wait_for()
    assert absent.nth(1).is_hidden()


def test_an_old_browser_is_told_and_keeps_the_numbers(chromium, pages):  # noqa: F811
    page, said = chromium.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.add_init_script("delete window.DecompressionStream")
    page.goto(pages["two"].as_uri())
    page.locator("#explore").scroll_into_view_if_needed()
    page.locator("[data-absent]").first.wait_for()
    assert "too old" in page.locator("[data-absent]").first.inner_text()
    assert "too old to draw" in page.locator("[data-figure=distance]").inner_text()
    cell(page, 0, 1, 1).click()
    assert cell(page, 0, 1, 1).get_attribute("aria-selected") == "true"
    page.close()
    assert said == []
