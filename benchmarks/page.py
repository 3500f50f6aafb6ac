"""docs/benchmarks.md and its figures from results.csv.

    python benchmarks/page.py

A section shows, of its newest CPU and of its newest CUDA device, the newest row of every case,
provider, quantity and precision; so every number of the page is a row of the file.
"""

import csv
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import click
from _page_figures import FIGURES, drawn
from _page_texts import CLOSING, OPENING, SECTIONS
from _rows import RESULTS, Row

DOCS = Path(__file__).resolve().parent.parent / "docs"
JOINED = {"memory", "scaling", "step", "probe"}  # one table for all cases
Key = tuple[str, ...]


def newest(found: Iterable[Row]) -> list[Row]:
    """Return the newest row of every provider and quantity, of the newest device of each kind.

    A case is shown as one commit and date measured it: older rows do not stand beside newer.
    """
    device: dict[tuple[str, bool], str] = {}
    rows = list(found)
    for row in rows:
        device[row["section"], is_cpu(row)] = row["device"]
    kept = [row for row in rows if device[row["section"], is_cpu(row)] == row["device"]]
    run = {case_of(row): stamp(row) for row in kept}
    latest: dict[Key, Row] = {}
    for row in kept:
        if stamp(row) == run[case_of(row)]:
            key = (*case_of(row), row["provider"], row["quantity"])
            latest.pop(key, None)
            latest[key] = row
    return list(latest.values())


def is_cpu(row: Row) -> bool:
    """Whether a row was measured on a CPU, which tells its threads."""
    return row["device"].endswith(" threads")


def case_of(row: Row) -> Key:
    """Return what a row is about, whoever did it."""
    return row["section"], row["device"], row["precision"], row["case"]


def stamp(row: Row) -> tuple[str, str]:
    """Return the date and commit of a row."""
    return row["date"], row["commit"]


def cell(row: Row | None) -> str:
    """Return value, ratio and quartiles, or why there are none.

    >>> cell({"value": "0.0125", "unit": "s", "ratio": "1.1", "q1": "1.05", "q3": "1.2"})
    '12.5 ms, **1.10** [1.05, 1.20]'
    """
    if row is None or row["value"] == "":
        return row["note"] if row else "-"
    text = amount(float(row["value"]), row["unit"])
    if row["ratio"] == "":
        return text
    digits = 2 if float(row["ratio"]) > 0.1 else 4
    numbers = [f"{float(row[k]):.{digits}f}" for k in ("ratio", "q1", "q3") if row[k] != ""]
    spread = f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 and len(set(numbers)) > 1 else ""
    return f"{text}, **{numbers[0]}**{spread}"


def amount(value: float, unit: str) -> str:
    """Return a value with its unit, three digits.

    >>> amount(2048, "MiB"), amount(31.25, "images/s")
    ('2 GiB', '31.2 images/s')
    """
    if unit == "s" and value < 1:
        return f"{1000 * value:.3g} ms"
    if unit == "MiB" and value >= 1024:
        return f"{value / 1024:.3g} GiB"
    return f"{value:.1e} {unit}" if 0 < abs(value) < 1e-3 else f"{value:.3g} {unit}"


def table(rows: list[Row], *, joined: bool) -> list[str]:
    """Return one table: a line for each provider (and case), a column for each quantity."""
    quantities = list(dict.fromkeys(row["quantity"] for row in rows))
    cells = {(row["case"], row["provider"], row["quantity"]): row for row in rows}
    lines = list(dict.fromkeys((row["case"], row["provider"]) for row in rows))
    head = (["case"] if joined else []) + ["", *quantities]
    found = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case, provider in lines:
        values = [cell(cells.get((case, provider, name))) for name in quantities]
        found.append("| " + " | ".join([case] * joined + [provider, *values]) + " |")
    return found


def told(rows: list[Row]) -> str:
    """Return the circumstances of a table in one line."""
    first = rows[0]
    numbers = {
        "images": [row["images"] for row in rows],
        "a batch": [row["batch"] for row in rows],
        "rounds": [row["rounds"] for row in rows],
    }
    spans = {name: sorted({int(v) for v in values if v != ""}) for name, values in numbers.items()}
    counts = [
        f"{' to '.join(map(str, v[:: max(1, len(v) - 1)]))} {k}" for k, v in spans.items() if v
    ]
    dates = sorted({row["date"] for row in rows})
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    about = [first["device"], first["precision"], *counts, f"torch {first['torch']}"]
    about += sorted({row["note"] for row in rows if row["note"] and row["value"] != ""})
    return f"*{'; '.join(about)}; commit {commits}, {dates[-1]}.*"


def section(name: str, rows: list[Row]) -> list[str]:
    """Return one section of the page."""
    title, text = SECTIONS[name]
    found = [f"## {title}", "", *text.strip().splitlines(), ""]
    if name in FIGURES:
        found += [f"![{title}](benchmarks-{name}.svg)", ""]
    joined = name in JOINED

    def group(row: Row) -> tuple[str, ...]:
        return (row["device"], row["precision"], "" if joined else row["case"])

    order = {key: place for place, key in enumerate(dict.fromkeys(map(group, rows)))}
    for key, same in groupby(sorted(rows, key=lambda row: order[group(row)]), group):
        several = list(same)
        found += [f"**{key[2]}**", ""] if key[2] else []
        found += [*table(several, joined=joined), "", told(several), ""]
    return found


def page(rows: list[Row]) -> str:
    """Return the text of docs/benchmarks.md."""
    lines = [OPENING.strip(), ""]
    for name in SECTIONS:
        if mine := [row for row in rows if row["section"] == name]:
            lines += section(name, mine)
    return "\n".join([*lines, CLOSING.strip(), ""])


@click.command(help=__doc__)
@click.option("--out", default=DOCS, type=click.Path(path_type=Path), show_default="docs")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), show_default="there")
@click.option("--figures/--no-figures", default=True, show_default=True)
def main(out: Path, results: Path, *, figures: bool) -> None:
    """Write the page and its figures."""
    with results.open(newline="") as file:
        rows = newest(csv.DictReader(file))
    (out / "benchmarks.md").write_text(page(rows))
    if figures:
        for name, picture in drawn(rows).items():
            (out / f"benchmarks-{name}.svg").write_bytes(picture)
    print(f"{out / 'benchmarks.md'}: {len(rows)} rows")


if __name__ == "__main__":
    main()
