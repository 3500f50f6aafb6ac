"""Comparisons and tracks for a paper: their figures, and LaTeX tables with the tables' numbers."""

import math
import re
from dataclasses import replace

import pytest
from installed import attnprobe
from planted import planted
from test_comparison_plots import model
from test_publishing import chrome  # noqa: F401
from tracks import run

from attnprobe.comparison import compare
from attnprobe.publication import publish
from attnprobe.publication.comparison_tables import comparison_tables
from attnprobe.tracking import track

FAST = {"resamples": 1000, "permutations": 1000}
HOSTILE = "a_b & 100% {x} \\input{y}"


@pytest.fixture(scope="module")
def comparison():
    return compare([model(0, name=HOSTILE), model(1, name="second")], **FAST)


def rows(text):
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    return [line for line in body.splitlines() if line.endswith(r"\\")]


def test_verdict_tables_have_a_row_a_verdict_with_its_number(comparison):
    texts = comparison_tables(comparison)
    table = comparison.tables["verdicts"]
    alone = table[table.model_b < 0]
    found = rows(texts["verdicts"])
    assert len(found) == len(alone)
    for line, row in zip(found, alone.itertuples(), strict=True):
        assert row.verdict in line
        assert ("--" if math.isnan(row.value) else f"{abs(row.value):.3f}") in line
    assert len(rows(texts["verdicts_between"])) == (table.model_b >= 0).sum()


def test_differences_over_all_layers_are_those_of_the_table(comparison):
    (line, *rest) = rows(comparison_tables(comparison)["differences_overall"])
    first = comparison.tables["overall"].iloc[0]
    assert "Attention distance (px)" in line
    assert f"{abs(first.value):.4f}" in line
    assert len(rest) == len(comparison.tables["overall"]) - 1


def test_names_are_escaped(comparison):
    for text in comparison_tables(comparison).values():
        assert r"\input{y}" not in text
        assert not re.search(r"(?<!\\)[_&](?=b)", text.replace(r"\_", ""))


def test_a_comparison_without_differences_has_verdicts_alone():
    whole = planted(images=4)
    means = {"layer_means": whole.tables["layer_means"]}
    bare = [replace(whole, name=name, samples={}, tables=means) for name in "ab"]
    assert set(comparison_tables(compare(bare, **FAST))) == {"verdicts", "verdicts_between"}


@pytest.mark.browser
def test_the_command_draws_a_saved_comparison(chrome, comparison, tmp_path):  # noqa: F811
    folder = comparison.save(tmp_path / "saved")
    names = ("--name", "MIM", "--name", "Supervised")
    plots = ("--plot", "differences,cross_cka,distance")
    attnprobe("figures", folder, *names, *plots, "-o", tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"differences.pdf", "cross_cka.pdf", "distance.pdf", "figures.tex"} <= written
    assert "MIM" in (tmp_path / "out" / "tables" / "verdicts.tex").read_text()


@pytest.mark.browser
def test_a_track_is_drawn(chrome, tmp_path):  # noqa: F811
    paths = publish(track(run((1, 2, 3))), tmp_path / "out", plots=("track_layers", "track_map"))
    assert {path.suffix for path in paths} >= {".pdf", ".tex"}


@pytest.mark.browser
@pytest.mark.parametrize("metric", ["../../victim/thesis", "/abs", "a/b", "..", "x" * 500, "\0"])
def test_what_a_result_calls_its_metrics_names_no_file_elsewhere(chrome, metric, tmp_path):  # noqa: F811
    (tmp_path / "victim").mkdir()
    result = planted()
    means = result.tables["layer_means"]
    hostile = means.assign(metric=means.metric.where(means.metric != "entropy", metric))
    result = replace(result, tables={**result.tables, "layer_means": hostile})
    paths = publish([result], tmp_path / "a" / "out", formats=("svg",), plots=())
    assert all(path.resolve().is_relative_to(tmp_path / "a" / "out") for path in paths)
    assert list((tmp_path / "victim").iterdir()) == []
    assert len({path.name for path in paths}) == len(paths)
