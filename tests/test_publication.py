"""Tables for a paper: the numbers of the results, in text that LaTeX takes as it is."""

import re
import shutil
import subprocess
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import synthetic_result

from attnprobe.publication.latex import ESCAPES, Column, escape, table
from attnprobe.publication.tables import tables
from attnprobe.report.legible import legible

HOSTILE = "a_&%$#{}~^\\<b>[x]*|\"`--''/ü 日\n\x1b[31m"
DOCUMENT = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


def several(count, **options):
    return [synthetic_result(f"model {n}", seed=n, **options) for n in range(count)]


def rows(text):
    """The cells of every row between the rules of every block, without what only sets them."""
    plain = re.sub(r"\{\\scriptsize (\[.*?\])\}", r"\1", text).replace("$-$", "-")
    found = re.findall(r"\\midrule\n(.*?)\s*\\bottomrule", plain, re.DOTALL)
    lines = [line for block in found for line in block.splitlines()]
    return [[cell.strip() for cell in line.rstrip("\\ ").split(" & ")] for line in lines]


def printed(text):
    """What LaTeX prints for escaped text, read by the commands it may contain."""
    back = {latex: letter for letter, latex in ESCAPES.items() if letter != "\ufffd"}
    back |= {"{?}": "\ufffd", "{}": ""}
    longest = sorted(back, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest)), lambda found: back[found[0]], text)


@given(st.text())
def test_escaped_text_prints_as_it_is_on_one_line(text):
    assert printed(escape(text)) == legible(re.sub(r"\s+", " ", text))


@given(st.text(alphabet="\\{}_&%$#~^<>|\"`[]*-'a "))
def test_nothing_special_is_left_bare(text):
    known = r"\\text[a-z]+\{\}|\\[_&%$#{}]|\{\}|\{[][*]\}|\{\\char34\}"
    left = re.sub(known, "", escape(text))
    assert not set(left) & set('\\{}_&%$#~^<>|"`[]*')
    assert "--" not in escape(text)
    assert "''" not in escape(text)


def test_letters_of_other_scripts_are_kept():
    assert escape("Größe 日本") == "Größe 日本"


def test_tables_hold_the_layer_means_of_every_model_and_their_intervals():
    results = [synthetic_result("shallow", layers=3), synthetic_result("deep", layers=5, seed=1)]
    for metric, text in tables(results).items():
        if metric == "models":
            continue
        found = rows(text)
        assert [row[0] for row in found] == ["1", "2", "3", "4", "5"]
        for rank, result in enumerate(results):
            means = result.tables["layer_means"].query("metric == @metric")
            for row, mean in zip(found, means.itertuples(), strict=False):
                value, interval = row[1 + 2 * rank : 3 + 2 * rank]
                ends = [float(end) for end in interval.strip("[]").split(", ")]
                expected = [mean.value, mean.low, mean.high]
                assert [float(value), *ends] == pytest.approx(expected, abs=10**-3 * mean.value)
        assert found[4][1:3] == ["--", ""]


def test_captions_name_unit_images_and_definition():
    text = tables([synthetic_result(images=9)])["distance"]
    assert "Attention distance (px) by layer" in text
    assert "9 images, with its 95 \\% bootstrap interval" in text
    assert "Definition: px, patch-to-patch, renormalised, v1." in text
    assert r"\label{tab:distance-by-layer}" in text
    without = tables([synthetic_result(intervals=False)])["distance"]
    assert "interval" not in without
    assert "[" not in "".join(map("".join, rows(without)))


def test_units_that_differ_stand_over_their_columns():
    first, second = several(2)
    means = second.tables["layer_means"].assign(unit="tokens")
    other = replace(second, tables={**second.tables, "layer_means": means})
    text = tables([first, other])["distance"]
    assert "model 0 (px)" in text
    assert "model 1 (tokens)" in text


def test_the_overview_says_what_each_model_is():
    result = synthetic_result("a_b", layers=5, heads=3, images=9)
    (row,) = rows(tables([result])["models"])
    expected = ["a\\_b", "vit\\_tiny\\_patch16\\_224", "mim", "5.7", "5", "3"]
    assert row == [*expected, r"224 $\times$ 224", r"16 $\times$ 16", "9"]


def test_columns_of_numbers_share_their_decimals_and_have_true_minus_signs():
    frame = pd.DataFrame({"name": ["a", "b"], "value": [-1.5, 0.25], "count": [3, 4]})
    columns = [Column("name", "N", lead=True), Column("value", "V"), Column("count", "C")]
    text = table(frame, columns, caption="c", label="l")
    assert "a & $-$1.500 & 3" in text
    assert "b & 0.250 & 4" in text
    assert r"\begin{tabular}{@{}lrr@{}}" in text


def test_wide_tables_span_the_page_and_break_into_blocks():
    narrow, wide = tables(several(2))["distance"], tables(several(8))["distance"]
    assert r"\begin{table}" in narrow
    assert narrow.count(r"\begin{tabular}") == 1
    assert r"\begin{table*}" in wide
    assert wide.count(r"\begin{tabular}") == wide.count("Layer &") == 2
    assert all(f"model {n}" in wide for n in range(8))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
def test_latex_compiles_hostile_names(tmp_path):
    hostile = HOSTILE.replace("日", "")  # pdflatex has Latin letters only
    results = [synthetic_result(hostile), synthetic_result(f"[{hostile}", seed=1, layers=6)]
    (tmp_path / "all.tex").write_text(DOCUMENT % "\n".join(tables(results).values()))
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Overfull" not in done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
