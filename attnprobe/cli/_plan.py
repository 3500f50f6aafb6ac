"""The work behind `inspect` and `--dry-run`: say what a checkpoint is and what would run."""

from typing import Any

from attnprobe.cli import _explain
from attnprobe.cli._console import console, put_json, records
from attnprobe.errors import FormatError, PartialLoadError


def show(checkpoint: str, loading: dict[str, Any], *, batch: int, as_json: bool) -> int:
    """Print the model card, the layers that would be captured and the memory they need."""
    import attnprobe
    from attnprobe.inspection import describe
    from attnprobe.report.terminal import card_table

    try:
        loaded = attnprobe.load(checkpoint, **loading)
    except (FormatError, PartialLoadError) as error:
        _explain.show(checkpoint, error, loading, as_json=as_json)
        raise
    found = describe(loaded, batch=batch)
    layers = found.pop("layers")
    if as_json:
        put_json({**found, "layers": records(layers)})
        return 0
    screen = console()
    screen.print(card_table(found["model"]))
    screen.print(_layers_table(layers))
    memory = found["memory"]
    screen.print(
        f"memory at batch {memory['batch']}: weights {memory['weights_mib']:.0f} MiB, "
        f"forward pass about {memory['forward_mib']:.0f} MiB, "
        f"measuring {memory['measuring_mib']:.0f} MiB"
    )
    return 0


def _layers_table(layers: Any) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="attention that would be captured", box=box.SIMPLE_HEAD)
    for heading in ("layer", "module", "heads", "head dim", "grid", "window", "prefix", "stride"):
        table.add_column(heading, justify="left" if heading == "module" else "right")
    for row in layers.itertuples():
        window = f"{row.window_rows} x {row.window_cols}" if row.window_rows else "global"
        shifted = " shifted" if row.shift_rows or row.shift_cols else ""
        table.add_row(
            str(row.layer + 1),
            Text(row.name),
            str(row.heads),
            str(row.head_dim),
            f"{row.rows} x {row.cols}" if row.rows else "none",
            (window + shifted) if row.rows else "",
            str(row.prefix),
            f"{row.patch_h:g} px" if row.rows else "",
        )
    return table
