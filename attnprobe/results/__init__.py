"""Result: tidy tables with intervals, per-image samples, and where they came from.

Saved as a folder that reads without torch:

    config.toml manifest.json summary.csv tables/*.parquet samples/*.parquet arrays/*.npz

A run folder also holds the report and the log of the run.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomlkit

from attnprobe import npz
from attnprobe.errors import OutputError, ResultError
from attnprobe.results import folders, manifest, parquet, schema
from attnprobe.results.folders import MANIFEST, check_output
from attnprobe.types import SCHEMA_VERSION, Provenance

__all__ = ["MANIFEST", "Result", "check_output", "load", "put", "save", "write_into"]

LARGEST_ARRAYS = 2**30  # bytes of one file of them


@dataclass(frozen=True, eq=False)  # equal only to itself, so that it can be a key
class Result:
    """The measurement of one model on one set of images.

    Attributes:
        name: Label of the model.
        config: Options of the run; plain values only.
        provenance: Hashes, versions, device, command.
        model: Model card: architecture, format, parameters, preprocessing, ledger.
        layers: One row a layer: layer, name, stage, heads, head_dim, rows, cols, patch,
            prefix, window, shift, patches, distance_uniform, distance_max, entropy_uniform.
        images: One row an image: image, id.
        tables: `distance` and `entropy` (layer, head, value, low, high, unit, definition),
            `head_kl` (head_a, head_b instead of head), `head_kl_mean` (layer, head: mean
            over the other heads), `prefix_mass` (layer, head, token), `cka` (layer_a,
            layer_b), `layer_means` (metric, layer, value, low, high, unit, ...).
        samples: The per-image values behind the tables (image, layer, ..., value).
        arrays: What is no table, by name and part: `grams` (see `metrics.cka`) and `maps`
            (see `attnprobe.maps`).
        schema: Version of this layout.
    """

    name: str
    config: dict[str, Any]
    provenance: Provenance
    model: dict[str, Any]
    layers: pd.DataFrame
    images: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    samples: dict[str, pd.DataFrame] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        texts: dict[str, str] | None = None,
    ) -> Path:
        """Write the result folder all-or-nothing and return its path.

        Args:
            folder: Where to write.
            overwrite: Replace an older result there.
            texts: More files to put beside the tables, by name (report, log).

        Raises:
            OutputError: The folder exists (and `overwrite` is false) or cannot be written.
        """
        return save(self, Path(folder), overwrite=overwrite, texts=texts or {})

    @staticmethod
    def load(folder: str | Path) -> "Result":
        """Read a result folder.

        Raises:
            ResultError: The folder is absent, incomplete, damaged or of a newer schema.
        """
        return load(Path(folder))


def save(result: Result, folder: Path, *, overwrite: bool, texts: dict[str, str]) -> Path:
    """Write `result` into `folder` under a temporary name, then put it into place."""
    path = check_output(folder, overwrite=overwrite)

    def write(staging: Path) -> None:
        write_into(result, staging)
        for name, text in texts.items():
            put(staging / name, text)

    try:
        folders.place(path, write)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "free some disk or choose another --out",
        ) from error
    return path


def load(folder: Path) -> Result:
    """Read the result folder written by `save`."""
    found = manifest.read(folder)
    frames = {
        kind: {
            name: _table(folder / kind / f"{name}.parquet") for name in found["files"].get(kind, [])
        }
        for kind in ("tables", "samples")
    }
    arrays = found["files"].get("arrays", [])
    layers, images = frames["tables"].pop("layers"), frames["tables"].pop("images")
    result = Result(
        name=found["name"],
        config=found["config"],
        provenance=found["provenance"],
        model=found["model"],
        layers=layers,
        images=images,
        tables=frames["tables"],
        samples=frames["samples"],
        arrays={name: _arrays(folder / "arrays" / f"{name}.npz") for name in arrays},
        schema=found["schema"],
    )
    schema.check(result, folder)
    return result


def _table(path: Path) -> pd.DataFrame:
    try:
        return parquet.read(path)
    except parquet.UNREADABLE as error:
        raise ResultError(f"cannot read {path}: {error}", "run the analysis again") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return npz.read(path, limit=LARGEST_ARRAYS)
    except npz.UNREADABLE as error:
        raise ResultError(f"cannot read {path}: {error}", "run the analysis again") from error


def write_into(result: Result, folder: Path) -> None:
    """Write a result's files into an empty folder that is being put together."""
    tables = {**result.tables, "layers": result.layers, "images": result.images}
    for kind, frames in (("tables", tables), ("samples", result.samples)):
        (folder / kind).mkdir()
        for name, frame in frames.items():
            frame.to_parquet(folder / kind / f"{name}.parquet", index=False)
    if result.arrays:
        (folder / "arrays").mkdir()
    for name, parts in result.arrays.items():
        np.savez_compressed(folder / "arrays" / f"{name}.npz", **parts)  # type: ignore[arg-type]
    result.tables["layer_means"].to_csv(folder / "summary.csv", index=False)
    settings = {key: value for key, value in result.config.items() if value is not None}
    put(folder / "config.toml", tomlkit.dumps(settings))
    content = {
        "schema": result.schema,
        "name": result.name,
        "config": result.config,
        "provenance": asdict(result.provenance),
        "model": result.model,
        "files": {
            "tables": sorted(tables),
            "samples": sorted(result.samples),
            "arrays": sorted(result.arrays),
        },
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    put(folder / MANIFEST, text + "\n")


def put(path: Path, text: str) -> None:
    """Write text; file names that are not UTF-8 in it are written with escapes."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
