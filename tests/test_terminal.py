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
    peak = result.tables["layer_means"].query("metric == 'head_kl'").set_index("layer").value
    assert f"differ most in layer {peak.idxmax() + 1} " in text
    assert "3 attention layers of 3 heads were measured on 6 images" in text


def test_summary_of_one_layer_without_intervals_claims_no_more_than_it_has():
    text = " ".join(sentences(synthetic_result(layers=1, images=1, intervals=False)))
    assert "[" not in text
    assert "in the last" not in text
    assert "CKA" not in text


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
