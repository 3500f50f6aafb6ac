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


def test_terminal_table_drops_what_was_not_measured():
    headings = [str(c.header) for c in layer_table(synthetic_result(metrics=("cka",))).columns]
    assert headings == ["\nLayer", "CKA\nlast"]


def test_terminal_text_is_not_markup():
    console = Console(width=200, record=True, file=StringIO())
    console.print(card_table({"name": "[red]x[/red]", "parameters": 12345, "ledger": {}}))
    console.print(layer_table(synthetic_result("[bold]m[/bold]")))
    text = console.export_text()
    assert "[red]x[/red]" in text
    assert "[bold]m[/bold]" in text
    assert "12,345" in text
    assert "0 matched" in text


def test_aligned_numbers_share_their_decimals():
    assert aligned([0.5, 12.26, np.nan]) == ["0.5", "12.3", "\N{EN DASH}"]
