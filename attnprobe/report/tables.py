"""Result tables as rows and columns for the page, with layers and heads counted from 1."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnprobe.frames import layer_means
from attnprobe.results import Result

COUNTED = ("layer", "head", "head_a", "head_b", "layer_a", "layer_b", "stage")
HEADINGS = {
    "model": "Model",
    "layer": "Layer",
    "head": "Head",
    "head_a": "Head",
    "head_b": "From head",
    "layer_a": "Layer",
    "layer_b": "Other layer",
    "token": "Token",
    "value": "Mean",
    "value_first": "First",
    "value_last": "Last",
    "change": "Change",
    "settled": "Settled at",
    "label": "Label",
    "epoch": "Epoch",
    "iteration": "Iteration",
    "step": "Step",
    "checkpoint": "Checkpoint",
    "low": "95 % low",
    "high": "95 % high",
    "head_min": "Lowest head",
    "head_max": "Highest head",
    "head_sd": "SD of heads",
    "uniform": "Uniform",
    "fraction": "Of uniform",
    "name": "Module",
    "stage": "Stage",
    "heads": "Heads",
    "head_dim": "Head dim",
    "prefix": "Prefix tokens",
    "patches": "Keys",
    "grid": "Grid",
    "patch": "Token (px)",
    "window": "Window",
    "shift": "Shift",
    "distance_uniform": "Distance if uniform",
    "distance_max": "Largest distance",
}
TIMES = " \N{MULTIPLICATION SIGN} "
ALIKE = (
    *("value", "low", "high", "change", "change_low", "change_high"),
    *("head_min", "head_max", "head_sd", "uniform"),
)
DIGITS = 4
SMALL = {"p": 4, "q": 4}  # decimals of what is read for how small it is
ORDER = ("distance", "entropy", "head_kl_mean", "head_kl", "prefix_mass", "cka")
HIDDEN = ("unit", "definition", "metric")
MIXED = "in"  # a column of units: the numbers beside it are of different kinds


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes:
        key: Identifier, also the name of the exported file.
        title: Heading.
        columns: Column names; layers and heads are named as counted from 1.
        headings: Column headings as shown.
        numeric: Which columns hold numbers.
        places: Decimals shown in a column, so that points stand in one line; None for
            text and counts; negative for significant digits, where a column mixes units.
        rows: Cells: numbers, text or None.
    """

    key: str
    title: str
    columns: list[str]
    headings: list[str]
    numeric: list[bool]
    places: list[int | None]
    rows: list[list[Any]]


def table(key: str, title: str, results: list[Result], frames: list[pd.DataFrame]) -> Table | None:
    """Frames of several results under each other, or None when there is nothing to show."""
    pairs = [
        frame.assign(model=result.name) if len(results) > 1 else frame
        for result, frame in zip(results, frames, strict=True)
        if not frame.empty
    ]
    if not pairs:
        return None
    return built(key, title, pd.concat(pairs, ignore_index=True))


def built(
    key: str, title: str, whole: pd.DataFrame, headings: dict[str, str] | None = None
) -> Table:
    """Return a frame as a table of the page.

    Args:
        key: Identifier.
        title: Heading.
        whole: The rows.
        headings: Headings that this table has of its own, by column.
    """
    known = {**HEADINGS, **(headings or {})}
    columns = [name for name in ("model", *whole.columns) if name in whole.columns]
    columns = [name for name in dict.fromkeys(columns) if _shown(whole[name])]
    return Table(
        key=key,
        title=title,
        columns=[f"{name} (from 1)" if name in COUNTED else name for name in columns],
        headings=[known.get(name, name.replace("_", " ").capitalize()) for name in columns],
        numeric=[pd.api.types.is_numeric_dtype(whole[name]) for name in columns],
        places=_places(whole, columns),
        rows=[
            list(cells) for cells in zip(*(_cells(whole[name]) for name in columns), strict=True)
        ],
    )


def metric_means(metric: str, results: list[Result]) -> Table | None:
    """Layer means of one metric."""
    frames = [layer_means(result, metric) for result in results]
    return table(f"{metric}_by_layer", "By layer", results, frames)


def whole(name: str, title: str, results: list[Result]) -> Table | None:
    """A result table as it is."""
    return table(
        name, title, results, [result.tables.get(name, pd.DataFrame()) for result in results]
    )


def geometry(results: list[Result]) -> Table | None:
    """Layers, with sizes joined to "rows x columns"."""
    return table(
        "layers", "Layers and their geometry", results, [_sizes(r.layers) for r in results]
    )


def definitions(results: list[Result]) -> list[tuple[str, str]]:
    """Every table with each definition that its numbers were made under.

    `layer_means` repeats the definitions of the tables it averages; only those that no
    other table carries are listed for it.
    """
    names = {name for result in results for name in result.tables}
    found = [
        (name, text)
        for name in sorted(names, key=_rank)
        for result in results
        for text in _unique(result.tables.get(name, pd.DataFrame()), "definition")
    ]
    known = {text for name, text in found if name != "layer_means"}
    return [
        pair for pair in dict.fromkeys(found) if pair[0] != "layer_means" or pair[1] not in known
    ]


def _rank(name: str) -> tuple[int, str]:
    """Known tables in the order of the page, others by name, `layer_means` last."""
    if name == "layer_means":
        return len(ORDER) + 1, name
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def _places(frame: pd.DataFrame, columns: list[str]) -> list[int | None]:
    """Decimals that give the largest number of a column four digits."""
    alike = [name for name in columns if name in ALIKE]
    if MIXED in columns:
        return [-DIGITS if pd.api.types.is_float_dtype(frame[name]) else None for name in columns]
    return [
        SMALL.get(name) or _decimals(frame[alike if name in alike else [name]])
        if pd.api.types.is_float_dtype(frame[name])
        else None
        for name in columns
    ]


def _decimals(numbers: Any) -> int:
    top = float(numbers.abs().max().max())
    return min(8, max(0, DIGITS - 1 - math.floor(math.log10(top)))) if top > 0 else 1


def _unique(frame: pd.DataFrame, column: str) -> list[str]:
    return [str(text) for text in frame[column].dropna().unique()] if column in frame else []


def _sizes(layers: pd.DataFrame) -> pd.DataFrame:
    def joined(first: str, second: str) -> list[str | None]:
        pairs = zip(layers[first], layers[second], strict=True)
        return [f"{a:g}{TIMES}{b:g}" if pd.notna(a) and (a or b) else None for a, b in pairs]

    keep = ["layer", "name", "stage", "heads", "head_dim", "prefix", "patches"]
    sizes = {
        "grid": joined("rows", "cols"),
        "patch": joined("patch_h", "patch_w"),
        "window": joined("window_rows", "window_cols"),
        "shift": joined("shift_rows", "shift_cols"),
    }
    if "key_rows" in layers:  # results of earlier releases have no such layers
        sizes |= {
            "key grid": joined("key_rows", "key_cols"),
            "key patch": joined("key_patch_h", "key_patch_w"),
            "dilation": [
                x if x != f"1{TIMES}1" else None for x in joined("dilation_rows", "dilation_cols")
            ],
            "padding": joined("pad_rows", "pad_cols"),
            "kept": [count or None for count in layers["kept"]],
        }
    limits = [name for name in ("distance_uniform", "distance_max") if name in layers]
    return layers[keep].assign(**sizes, **{name: layers[name] for name in limits})


def _shown(column: Any) -> bool:
    return column.name not in HIDDEN and bool(column.notna().any())


def _cells(column: Any) -> list[Any]:
    shift = 1 if column.name in COUNTED else 0
    if not pd.api.types.is_numeric_dtype(column):
        return [None if pd.isna(cell) else str(cell) for cell in column]
    return [None if pd.isna(cell) else cell + shift for cell in column.tolist()]
