"""Show what a checkpoint holds that no known format explains."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attnprobe.cli._console import console, put_json, say
from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    from rich.table import Table

    from attnprobe.explanation import Explanation, Nearness

SHOWN = 14


def show(checkpoint: str, error: AttnprobeError, loading: dict[str, Any], *, as_json: bool) -> None:
    """Print the explanation of a file that could not be loaded; nothing where it has none."""
    from attnprobe import explanation

    try:
        found = explanation.explain(
            checkpoint, trust=bool(loading.get("trust")), part=loading.get("part")
        )
    except AttnprobeError:
        return  # the error says it all
    if as_json:
        nearest = [{**asdict(one), "distance": one.distance} for one in found.nearest]
        rows = {**asdict(found), "path": str(found.path), "nearest": nearest}
        put_json({"error": error.cause, "remedy": error.remedy, "explanation": rows})
        return
    _print(found)


def _print(found: "Explanation") -> None:
    from attnprobe.explanation import record

    screen = console()
    tensors = sum(count for _, count, _ in found.groups)
    values = sum(size for _, _, size in found.groups)
    screen.print(f"{found.path}: {found.container}, {tensors} tensors, {values / 1e6:.2f} M values")
    if found.beside:
        screen.print(f"beside the tensors: {', '.join(found.beside[:SHOWN])}", markup=False)
    screen.print(_table("where the tensors lie", ("prefix", "tensors", "values"), found.groups))
    rows = tuple(
        (name, " x ".join(map(str, shape)), count) for name, shape, count in found.patterns
    )
    screen.print(_table("largest tensors", ("name", "shape", "times"), rows))
    if not found.nearest:
        return
    best = found.nearest[0]
    near = ", ".join(f"{one.name} {1 - one.distance:.0%}" for one in found.nearest)
    screen.print(f"names that agree with a known format: {near}")
    _differences(best)
    if best.pairs:
        say("a format of your own, to be saved as my_format.py and given with --plugin:")
        screen.print(record(best), markup=False, highlight=False, soft_wrap=True)


def _differences(best: "Nearness") -> None:
    screen = console()
    screen.print(f"against {best.name} (prefix {best.prefix!r} taken off):", markup=False)
    paired = set(best.pairs) | set(best.pairs.values())
    for words, names in (("missing", best.missing), ("not placed", best.extra)):
        left = [name for name in names if name not in paired]
        more = f", ... and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        if left:
            screen.print(f"  {words}: {', '.join(left[:SHOWN])}{more}", markup=False)
    for theirs, ours in best.pairs.items():
        screen.print(f"  {theirs} -> {ours}?", markup=False)


def _table(title: str, headings: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    more = f" (first {SHOWN} of {len(rows)})" if len(rows) > SHOWN else ""
    table = Table(title=title + more, box=box.SIMPLE_HEAD, title_justify="left")
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="left" if at == 0 else "right")
    for row in rows[:SHOWN]:
        table.add_row(*(Text(f"{x:,}" if isinstance(x, int) else str(x)) for x in row))
    return table
