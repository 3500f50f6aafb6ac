"""Rows of results.csv: what was measured, on what, when; and the gate before any of it."""

import csv
import platform
import statistics
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import click
import timm
import torch
from _common import BARE, WHOLE, Measured, Settings

from attnprobe import doctor

RESULTS = Path(__file__).resolve().parent / "results.csv"
FIELDS = (
    *("date", "commit", "device", "torch", "timm", "section", "case", "precision", "images"),
    *("batch", "rounds", "provider", "quantity", "value", "unit", "ratio", "q1", "q3", "note"),
)

Row = dict[str, Any]


@cache
def gate(device: str) -> None:
    """Refuse to time kernels that disagree with float64 or with known answers.

    Raises:
        ClickException: Some check of `attnprobe doctor` fails.
    """
    failed = [check.name for check in doctor.checks(device) if not check.passed]
    if failed:
        raise click.ClickException(f"kernels disagree with float64, nothing was timed: {failed}")


def agreed(what: str, apart: float, tolerance: float) -> float:
    """Return a deviation that is small enough.

    Raises:
        ClickException: It is not, so there is nothing to compare the speed of.
    """
    if not apart <= tolerance:
        raise click.ClickException(
            f"{what}: numbers differ by {apart:.1e} (tolerance {tolerance:.0e}), nothing was timed"
        )
    return apart


def rows(section: str, case: str, found: Measured, settings: Settings, **facts: Any) -> list[Row]:
    """Return one row a provider and quantity: medians, and quartiles of the ratio to `BARE`.

    A ratio is taken round by round, so that what slows the machine slows both of its sides.
    """
    made, floor = [], found.get(BARE, [])
    floor = [] if isinstance(floor, str) else floor
    for name, runs in found.items():
        about = {"section": section, "case": case, "provider": name, **facts}
        if isinstance(runs, str):
            made.append(row(settings, **about, quantity=WHOLE, note=runs))
            continue
        for quantity in runs[0]:
            values = [run[quantity] for run in runs]
            pairs = [(v, b[quantity]) for v, b in zip(values, floor, strict=False) if quantity in b]
            spread = quartiles([value / base for value, base in pairs]) if pairs else {}
            value = statistics.median(values)
            about |= {"quantity": quantity, "value": value, "unit": "s", "rounds": len(runs)}
            made.append(row(settings, **about, **spread))
    return made


def quartiles(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles as columns of a row.

    >>> quartiles([1.0, 2.0, 3.0])
    {'q1': 1.5, 'ratio': 2.0, 'q3': 2.5}
    """
    if len(values) == 1:
        return dict.fromkeys(("ratio", "q1", "q3"), values[0])
    cuts = statistics.quantiles(values, n=4, method="inclusive")
    return dict(zip(("q1", "ratio", "q3"), cuts, strict=True))


def row(settings: Settings, **values: Any) -> Row:
    """Return one row; numbers are rounded to five digits."""
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "device": torch.cuda.get_device_name(settings.device) if settings.cuda else processor(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "precision": settings.precision,
    }
    found = {name: {**about, **values}.get(name, "") for name in FIELDS}
    if settings.clock == "cpu" and found["unit"] == "s":
        found["note"] = f"cpu seconds {found['note']}".strip()
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in found.items()}


def show(found: Row) -> None:
    """Print one row."""
    value = f"{found['value']:10.4g} {found['unit']:12s}" if found["value"] != "" else " " * 23
    ratio, low, high = (found[name] for name in ("ratio", "q1", "q3"))
    ratio = (
        "" if ratio == "" else f"x{ratio:.3f}" + ("" if low == "" else f" [{low:.3f}, {high:.3f}]")
    )
    about = f"{found['section']}: {found['case']}: {found['provider']}: {found['quantity']}"
    print(f"{about:90s} {value} {ratio} {found['note']}", flush=True)


@cache
def commit() -> str:
    """Return the short commit, marked when the package differs from it."""
    git = ["git", "-C", str(RESULTS.parent)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if name.returncode:
        return "unknown"
    dirty = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../attnprobe"])
    return name.stdout.strip() + ("+" if dirty.returncode else "")


def processor() -> str:
    """Return the processor's name and the threads used."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def append(found: Iterable[Row], path: Path = RESULTS) -> None:
    """Add rows to results.csv, with a header if it is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(found)
