"""The page is one safe file that says where every number came from."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic import DEFINITIONS, METRICS, synthetic_result
from synthetic_maps import unpacked

from attnprobe.errors import OutputError, ResultError
from attnprobe.plots import MOST
from attnprobe.report import render, report, tables
from attnprobe.report.figures import embed
from attnprobe.results import Result

HOSTILE = "\"'><script>alert(1)</script></script><!--<img src=x onerror=alert(1)>&amp;\u2028é字"


def read(page):
    """Elements of a page, its text, and the text of each script."""
    parser = HTMLParser(convert_charrefs=True)
    found = SimpleNamespace(elements=[], text=[], scripts=[])
    inside = [""]

    def start(tag, attrs):
        found.elements.append((tag, dict(attrs)))
        inside[0] = tag
        if tag == "script":
            found.scripts.append("")

    def data(text):
        if inside[0] == "script":
            found.scripts[-1] += text
        elif inside[0] != "style":
            found.text.append(text)

    parser.handle_starttag, parser.handle_data = start, data
    parser.handle_endtag = lambda _: inside.__setitem__(0, "")
    parser.feed(page)
    parser.close()
    return found


def words(page):
    return " ".join(" ".join(read(page).text).split())


def payload(page):
    (script,) = (s for s in read(page).scripts if s.startswith("{"))
    return json.loads(script)


@pytest.fixture(scope="module")
def page():
    return render([synthetic_result(layers=3, heads=2)])


def test_report_writes_one_file_and_nothing_else(tmp_path):
    path = report([synthetic_result()], tmp_path / "new" / "page.html")
    assert [item.name for item in path.parent.iterdir()] == ["page.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_size < 8_000_000


def test_report_keeps_an_existing_file_unless_told(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists") as caught:
        report([synthetic_result()], path)
    assert "--overwrite" in caught.value.remedy
    assert path.read_text() == "mine"
    report([synthetic_result()], path, overwrite=True)
    assert path.read_text(encoding="utf-8") != "mine"


def test_a_failing_write_leaves_the_old_page_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        report([synthetic_result()], path, overwrite=True)
    assert path.read_text() == "mine"
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_report_refuses_a_folder_and_a_parent_that_is_a_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        report([synthetic_result()], tmp_path, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        report([synthetic_result()], tmp_path / "file" / "page.html")


@pytest.mark.parametrize("count", [0, MOST + 1])
def test_report_refuses_no_results_and_too_many(count):
    with pytest.raises(ResultError, match="1 to 8"):
        render([synthetic_result()] * count)


def test_every_definition_and_the_provenance_are_on_the_page(page):
    shown = words(page)
    for definition in DEFINITIONS.values():
        assert definition in shown
    for text in ("ab" * 32, "cd" * 32, "torch = 2.9.0", "attnprobe analyze vit_tiny --out run"):
        assert text in shown
    assert "broken.jpg: truncated file" in shown
    assert "1 image skipped" in shown
    assert "64 channels a head" in shown
    assert "decoder.0.weight: decoder" in shown


def test_every_layer_mean_is_in_a_table_at_full_precision(page):
    found = {attrs.get("data-value") for tag, attrs in read(page).elements if tag == "td"}
    means = synthetic_result(layers=3, heads=2).tables["layer_means"]
    assert {str(value) for value in means.value} <= found


def test_longer_tables_travel_whole_and_count_from_one(page):
    result = synthetic_result(layers=3, heads=2)
    table = payload(page)["tables"]["head_kl"]
    assert table["columns"][:3] == ["layer (from 1)", "head_a (from 1)", "head_b (from 1)"]
    expected = result.tables["head_kl"]
    keys = (expected[["layer", "head_a", "head_b"]] + 1).to_numpy().tolist()
    assert [row[:3] for row in table["rows"]] == keys
    assert [row[3] for row in table["rows"]] == expected.value.tolist()


def test_the_page_asks_for_nothing_and_allows_only_its_own_scripts(page):
    reader = read(page)
    policy = next(a["content"] for t, a in reader.elements if "content-security" in str(a).lower())
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for script in reader.scripts:
        if not script.startswith("{"):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    links = [a[k] for _, a in reader.elements for k in ("src", "href", "action") if k in a]
    assert all(link.startswith(("#", "data:")) for link in links)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    plotly = unpacked(payload(page)["plotly"])
    assert b"plotly.js" in plotly[:200]
    assert base64.b64encode(hashlib.sha256(plotly).digest()).decode() in policy


def test_hostile_text_stays_text():
    result = synthetic_result(HOSTILE, source=HOSTILE, assumed=[HOSTILE], tokens=(HOSTILE,))
    result.model["ledger"] = {"dropped": [HOSTILE]}
    result.config[HOSTILE] = HOSTILE
    ours = replace(result.provenance, skipped=(HOSTILE,), command=HOSTILE)
    result.tables["distance"]["definition"] = HOSTILE
    page = render([replace(result, provenance=ours), synthetic_result(seed=1)])
    plain = render([synthetic_result(), synthetic_result(seed=1)])
    ours, theirs = read(page), read(plain)
    assert len(ours.scripts) == len(theirs.scripts)
    assert not [tag for tag, attrs in ours.elements if tag == "img" or "onerror" in attrs]
    assert HOSTILE.replace("\u2028", " ") in words(page)
    assert HOSTILE in {row[0] for row in payload(page)["tables"]["distance"]["rows"]}


def test_embedded_json_survives_any_text():
    text = embed({"name": HOSTILE})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"name": HOSTILE}


@pytest.mark.parametrize("metrics", [(), *((metric,) for metric in METRICS)])
def test_sections_of_absent_metrics_disappear(metrics):
    page = render([synthetic_result(layers=2, heads=2, metrics=metrics)])
    sections = {a["id"] for tag, a in read(page).elements if tag == "section"}
    of_heads = {"distance", "entropy", "head_kl"} & set(metrics)
    views = {"explore"} if of_heads else set()
    assert sections == {*metrics, "model", "methods", "provenance"} | views


def test_models_without_prefix_tokens_have_no_prefix_section():
    page = render([synthetic_result(tokens=())])
    assert 'id="prefix_mass"' not in page


def test_several_models_are_named_in_every_table_and_drawn_together():
    results = [synthetic_result("first"), synthetic_result("second", seed=1, layers=5)]
    page = render(results)
    assert "2 models compared" in words(page)
    assert "profiles" in payload(page)["figures"]
    for table in payload(page)["tables"].values():
        assert {row[0] for row in table["rows"]} == {"first", "second"}


def test_a_model_without_a_metric_is_left_out_of_its_section_only():
    short = synthetic_result("short", metrics=("entropy",))
    page = render([short, synthetic_result("full", seed=1)])
    found = tables.metric_means("distance", [short, synthetic_result("full", seed=1)])
    assert "head_min" in found.columns
    assert {row[0] for row in found.rows} == {"full"}
    assert {row[0] for row in payload(page)["tables"]["entropy"]["rows"]} == {"short", "full"}


def test_tables_a_plugin_adds_are_shown_without_being_known():
    result = synthetic_result()
    extra = result.tables["distance"].assign(definition="made up, v1", unit="u")
    page = render([replace(result, tables={**result.tables, "rank_of_heads": extra})])
    assert "Rank of heads" in words(page)
    assert "made up, v1" in words(page)


def test_a_report_of_a_saved_result_is_the_same(tmp_path):
    result = synthetic_result(layers=2, heads=2)
    loaded = Result.load(result.save(tmp_path / "run"))
    assert render([loaded]) == render([result])


def test_reports_never_import_torch():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from synthetic import synthetic_result\n"
        "from attnprobe.report import render, terminal\n"
        "render([synthetic_result(layers=2, heads=2)])\n"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_geometry_shows_the_largest_distance_beside_the_uniform_one():
    result = synthetic_result(layers=2)
    shown = tables.geometry([result])
    row = dict(zip(shown.columns, shown.rows[0], strict=True))
    assert row["distance_uniform"] == result.layers.distance_uniform[0]
    assert row["distance_max"] == result.layers.distance_max[0]
    assert "Largest distance" in shown.headings


def test_table_decimals_follow_the_largest_number():
    (table,) = (tables.metric_means("distance", [synthetic_result()]),)
    assert table.places[table.columns.index("uniform")] == 1  # 116.5 px
    assert table.places[0] is None
