"""What a training run changed, as a table for a terminal."""

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from attnprobe.frames import known, rows
from attnprobe.report.legible import legible
from attnprobe.report.terminal import ABSENT, aligned
from attnprobe.tracking import Track
from attnprobe.tracking.naming import between, quantity

ARROW = " \N{RIGHTWARDS ARROW} "
UNTOLD = "="  # between values that cannot be told apart
SHORT = {
    "distance": "Distance",
    "entropy": "Entropy",
    "head_kl": "Head KL",
    "prefix_mass": "Prefix",
}


def changes_table(track: Track) -> Table:
    """Return one row a layer with the first and the last value of each metric."""
    changes = known(track.tables["changes"], "change")
    table = Table(
        title=Text(f"{legible(track.name)}: {between(track)}", style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        caption=Text(
            f"layers are counted from 1; {UNTOLD} where the interval of the change holds zero",
            style="dim",
        ),
        caption_justify="left",
    )
    layers = track.results[-1].layers["layer"].astype(int).tolist()
    columns = {"\nLayer": [str(layer + 1) for layer in layers]}
    for metric in changes["metric"].unique():
        part = changes.loc[changes["metric"] == metric]
        unit = next((row.unit for row in rows(part.head(1)) if isinstance(row.unit, str)), "")
        columns[f"{SHORT.get(metric, quantity(metric))}\n{legible(unit)}"] = _cells(part, layers)
    for heading in columns:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _cells(changes: pd.DataFrame, layers: list[int]) -> list[str]:
    """Return the first and the last value of each layer, joined by what the interval allows."""
    found = {row.layer: row for row in rows(changes)}
    known_layers = [layer for layer in layers if layer in found]
    ends = [getattr(found[n], end) for end in ("value_first", "value_last") for n in known_layers]
    texts = aligned(ends)
    cells = dict.fromkeys(layers, ABSENT)
    for at, layer in enumerate(known_layers):
        row = found[layer]
        untold = pd.notna(row.low) and row.low <= 0 <= row.high
        sign = f" {UNTOLD} " if untold else ARROW
        cells[layer] = f"{texts[at]}{sign}{texts[at + len(known_layers)]}"
    return [cells[layer] for layer in layers]
