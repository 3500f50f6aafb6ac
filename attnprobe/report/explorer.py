"""Linked views of single heads: numbers, maps and distances of every head, as plain values.

The page shows two heads at once: each head's numbers from the tables, its attention for one
patch of one image, its mean maps, and how its attention and its images spread over distance.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnprobe.frames import known, rows
from attnprobe.report import packing
from attnprobe.report.layerparts import LayerParts, layer_parts, photographs, pixels
from attnprobe.report.packing import Level
from attnprobe.results import Result

METRICS = ("distance", "entropy", "head_kl_mean")
FIGURES = {"distance": "distance", "entropy": "entropy", "head_kl": "head_kl_mean"}
DIGITS = 5
HOW = "attnprobe analyze CHECKPOINT -i IMAGES --maps 3"


@dataclass(frozen=True)
class Explorer:
    """The linked views of a page.

    Attributes:
        data: Models, layers, heads and packed maps as plain JSON values.
        notes: What the page leaves out, and how to get maps that are absent.
    """

    data: dict[str, Any]
    notes: list[str]


def explorer(results: list[Result]) -> Explorer | None:
    """Put together the linked views; None when no table has a value for each head.

    Raises:
        ResultError: Stored maps do not fit the layers they belong to.
    """
    held = [result for result in results if any(name in result.tables for name in METRICS)]
    if not held:
        return None
    parts = [list(layer_parts(result)) for result in held]
    photos = [photographs(result) for result in held]
    sizes = [[4 * len(file) // 3 for _, file in files] for files in photos]
    layers = [layer for part in parts for layer in part]
    heads = sum(len(layer.quantiles) for layer in layers)
    level, texts = packing.fit(layers, sizes, packing.budget(heads))
    kept = [files[: level.images] for files in photos]
    packed = iter(texts)
    data = _images(kept)
    data["models"] = [
        {
            "name": result.name,
            "hue": results.index(result),
            "units": {name: _unit(result, name) for name in METRICS},
            "images": data["held"][at],
            "layers": [
                _layer(layer, numbers, level, next(packed))
                for layer, numbers in zip(part, _numbers(result), strict=True)
            ],
        }
        for at, (result, part) in enumerate(zip(held, parts, strict=True))
    ]
    del data["held"]
    data |= {"steps": level.steps, "meanSteps": packing.MEAN_STEPS, "figures": _figures(held)}
    return Explorer(data, [*_absent(held, photos), *_left_out(held, parts, level)])


def _images(photos: list[list[tuple[str, bytes]]]) -> dict[str, Any]:
    """Images by id over all models, each file once, and where each model holds them."""
    ids = list(dict.fromkeys(name for files in photos for name, _ in files))
    unique = list(dict.fromkeys(file for files in photos for _, file in files))
    held = []
    for files in photos:
        own = {name: (at, unique.index(file)) for at, (name, file) in enumerate(files)}
        held.append([own.get(name) for name in ids])
    texts = [base64.b64encode(file).decode() for file in unique]
    return {"images": ids, "files": texts, "held": held}


def _layer(layer: LayerParts, numbers: dict[str, Any], level: Level, packed: str) -> dict[str, Any]:
    """One layer as plain values, in the order and with the lengths of its packed bytes."""
    record = {**numbers, "quantiles": layer.quantiles.shape[1], "scale": layer.scale}
    record["packed"] = packed
    if layer.grid is None:
        return record
    grid = layer.grid
    even = packing.uniform_offset(grid)
    record |= {
        "grid": [grid.rows, grid.cols],
        "patch": list(grid.patch),
        "window": grid.window and list(grid.window),
        "shift": list(grid.shift),
        "even": [_round(mass) for mass in packing.by_distance(even, grid).tolist()],
        "pixels": pixels(numbers["unit"], grid),
    }
    if layer.maps is not None:
        keep = packing.kept_queries(layer.maps.queries, grid.cols, level.thin)
        record |= {
            "pool": layer.maps.pool,
            "cells": list(layer.maps.rows.shape[-2:]),
            "offsets": list(packing.by_cell(even, layer.maps.pool).shape),
            "queries": layer.maps.queries[keep].tolist(),
        }
    return record


def _numbers(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the numbers of each layer's heads: value and interval, and the uniform value."""
    found: dict[tuple[str, int, int], list[float | None]] = {}
    for metric in METRICS:
        table = result.tables.get(metric)
        for row in rows(known(table, "value")) if table is not None else ():
            found[metric, row.layer, row.head] = [_round(n) for n in (row.value, row.low, row.high)]
    for row in rows(result.layers):
        yield {
            "heads": int(row.heads),
            "unit": _unit(result, "distance"),
            "values": {
                metric: [found.get((metric, row.layer, head)) for head in range(row.heads)]
                for metric in METRICS
                if metric in result.tables
            },
            "uniform": {
                name: _round(getattr(row, f"{name}_uniform", None))
                for name in ("distance", "entropy")
            },
        }


def _figures(results: list[Result]) -> dict[str, list[int]]:
    """Which models the panels of each figure are about, so that a dot names its model."""
    return {
        figure: [at for at, result in enumerate(results) if table in result.tables]
        for figure, table in FIGURES.items()
    }


def _unit(result: Result, table: str) -> str:
    return str(next(iter(result.tables[table]["unit"]), "")) if table in result.tables else ""


def _round(value: Any) -> float | None:
    """A number with a few significant digits, or None for what was not measured."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _absent(results: list[Result], photos: list[list[tuple[str, bytes]]]) -> Iterator[str]:
    """Say which models have no maps, or maps of other images, and how to get them."""
    without = [result.name for result, files in zip(results, photos, strict=True) if not files]
    if without:
        whose = "" if len(without) == len(results) else f" of {', '.join(without)}"
        yield f"The run{whose} kept no attention maps; {HOW} keeps those of three images."
    names = [{name for name, _ in files} for files in photos if files]
    if names and not set.intersection(*names):
        yield (
            "The models have maps of different images; measure them on the same images, "
            "with the same --maps, to set them side by side."
        )


def _left_out(results: list[Result], parts: list[list[LayerParts]], level: Level) -> Iterator[str]:
    """Say what the page leaves out to stay small; the run folders hold all of it."""
    stored = [layer.maps for layers in parts for layer in layers if layer.maps is not None]
    if not stored:
        return
    near = 100 * (2 ** (0.5 / level.steps) - 1)
    yield f"Values on the maps are rounded to within {near:.0f} %."
    most = max(len(layer.rows) for layer in stored)
    parted = []
    if level.images == 0:
        parted.append("the attention of single patches")
    elif level.images is not None and level.images < most:
        parted.append(f"all but {level.images} of {most} images")
    if level.thin > 1:
        parted.append(f"all but one in {level.thin**2} of the stored patches")
    if parted:
        yield (
            f"To keep this page small, {' and '.join(parted)} are left out; "
            f"the run folder{' holds' if len(results) == 1 else 's hold'} all of them."
        )
