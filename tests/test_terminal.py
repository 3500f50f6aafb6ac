"""Words and terminal tables say what the result tables say."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from synthetic import synthetic_result

from attnprobe.report.summary import sentences
from attnprobe.report.terminal import aligned, card_table, layer_table


def test_summary_reads_first_and_last_layer_from_the_table():
    result = synthetic_result(layers=3)
    rows = result.tables["layer_means"].query("metric == 'distance'")
    text = " ".join(sentences(result))
    for row in (rows.iloc[0], rows.iloc[-1]):
        assert f"{row.value:#.3g}".rstrip(".") in text
    assert "3 attention layers of 3 heads were measured on 6 images" in text


def test_summary_of_one_layer_without_intervals_claims_no_more_than_it_has():
    text = " ".join(sentences(synthetic_result(layers=1, images=1, intervals=False)))
    assert "[" not in text
    assert "in the last" not in text
    assert "CKA" not in text


def ranked(*intervals):
    """The paragraph for entropies with these ends in successive layers."""
    result = synthetic_result(layers=len(intervals), metrics=("entropy",))
    means = result.tables["layer_means"]
    means["low"], means["high"] = zip(*intervals, strict=True)
    means["value"] = (means.low + means.high) / 2
    return " ".join(sentences(result))


def test_summary_ranks_layers_whose_intervals_are_disjoint():
    text = ranked((2.0, 2.2), (4.0, 4.2), (1.0, 1.2))
    assert "most focused in layer 3 (mean entropy 1.10 [1.00, 1.20] nats)" in text
    assert "most spread out in layer 2 (4.10 [4.00, 4.20] nats)" in text


def test_summary_prints_enough_digits_to_tell_ranked_layers_apart():
    text = ranked((5.2761, 5.2769), (5.2781, 5.2783))
    assert "layer 1 (mean entropy 5.277 [5.276, 5.277] nats)" in text
    assert "layer 2 (5.278 [5.278, 5.278] nats)" in text


def test_summary_ranks_no_layers_whose_intervals_meet():
    text = ranked((5.27, 5.30), (5.28, 5.31))
    assert "No two layers differ in mean entropy by more than their intervals." in text
    assert "most focused" not in text
    partly = ranked((1.0, 5.0), (4.0, 4.2), (4.5, 5.2))  # the extremes meet, layers 2 and 3 do not
    assert "most focused" not in partly
    assert "No two layers" not in partly


def test_summary_without_intervals_ranks_nothing():
    text = " ".join(sentences(synthetic_result(intervals=False)))
    assert "most" not in text
    assert "least" not in text


@pytest.mark.parametrize("width", [100, 80, 60])
def test_terminal_table_fits_and_shows_every_layer(width):
    result = synthetic_result(layers=12, heads=12)
    console = Console(width=width, record=True, file=StringIO())
    table = layer_table(result, width)
    console.print(table)
    text = console.export_text()
    assert table.row_count == 12
    assert "…" not in text
    means = result.tables["layer_means"].query("metric == 'distance'").value
    assert all(f"{value:.1f}" in text for value in means)


def test_eighty_columns_keep_the_prefix_tokens():
    headings = [str(c.header) for c in layer_table(synthetic_result(layers=12), 80).columns]
    assert "Prefix\n%" in headings
    assert "95 %\ninterval" in headings


def test_terminal_table_drops_what_was_not_measured():
    headings = [str(c.header) for c in layer_table(synthetic_result(metrics=("cka",))).columns]
    assert headings == ["\nLayer", "CKA\nlast"]


def printed(*tables):
    console = Console(width=200, record=True, file=StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/b]X", "[link=a]b", "\\[bold]", ":smile:"])
def test_terminal_text_is_not_markup(name):
    card = {"name": name, name: 1, "model_args": {name: name}, "assumed": [name]}
    text = printed(card_table(card), layer_table(synthetic_result(name)))
    assert text.count(name) == 6


def test_card_shows_one_key_a_line_and_counts():
    args = {"img_size": [32, 32], "class_token": True}
    lines = printed(card_table({"parameters": 12345, "model_args": args, "ledger": {}}))
    lines = [line.strip() for line in lines.splitlines()]
    assert "class_token = True" in lines
    assert any(line.endswith("img_size = 32, 32") for line in lines)
    assert any(line.endswith("12,345") for line in lines)
    assert any("0 matched" in line for line in lines)


@pytest.mark.parametrize("code", [0x00, 0x07, 0x0A, 0x1B, 0x7F, 0x9B, 0x202E, 0xDCFF])
def test_no_character_steers_the_terminal(code):
    name = f"a{chr(code)}[2Jb"
    text = printed(card_table({"name": name, name: [name]}), layer_table(synthetic_result(name)))
    assert chr(code) not in text.replace("\n", "" if code == 0x0A else "\n")
    assert text.count("a\N{REPLACEMENT CHARACTER}[2Jb") == 4


def test_aligned_numbers_share_their_decimals():
    assert aligned([0.5, 12.26, np.nan]) == ["0.5", "12.3", "\N{EN DASH}"]
