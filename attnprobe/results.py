"""Result: tidy tables with intervals, per-image samples, and where they came from.

Saved as a folder that reads without torch:

    config.toml manifest.json summary.csv tables/*.parquet samples/*.parquet

A run folder also holds the report and the log of the run.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import tomlkit

from attnprobe.errors import OutputError, ResultError
from attnprobe.types import SCHEMA_VERSION, Provenance

MANIFEST = "manifest.json"


@dataclass(frozen=True)
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
            ResultError: The folder is absent, incomplete or of a newer schema.
        """
        return load(Path(folder))


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder before the work, not after it.

    Raises:
        OutputError: The folder exists and is not empty, or its parent cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} exists and is not a folder", "choose another --out")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise OutputError(
                f"{folder} already holds files", "pass --overwrite or choose another --out"
            )
        if not (folder / MANIFEST).is_file():
            raise OutputError(
                f"{folder} is not a result folder (it has no {MANIFEST}), so it is not replaced",
                "choose another --out or remove the folder yourself",
            )
    parent = folder.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".attnprobe-"):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {parent}: {error.strerror or error}",
            "choose a writable --out or free some disk",
        ) from error


def save(result: Result, folder: Path, *, overwrite: bool, texts: dict[str, str]) -> Path:
    """Write `result` into `folder` under a temporary name, then rename it into place."""
    check_output(folder, overwrite=overwrite)
    try:
        staging = Path(tempfile.mkdtemp(dir=folder.resolve().parent, prefix=".attnprobe-"))
        staging.chmod(0o777 & ~_umask())  # mkdtemp keeps others out; a result is for sharing
        try:
            _write(result, staging)
            for name, text in texts.items():
                (staging / name).write_text(text, encoding="utf-8")
            _swap(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror or error}",
            "free some disk or choose another --out",
        ) from error
    return folder


def load(folder: Path) -> Result:
    """Read the result folder written by `save`."""
    manifest = _manifest(folder)
    frames = {
        kind: {
            name: _table(folder / kind / f"{name}.parquet")
            for name in manifest["files"].get(kind, [])
        }
        for kind in ("tables", "samples")
    }
    layers, images = frames["tables"].pop("layers"), frames["tables"].pop("images")
    known = {item.name for item in fields(Provenance)}
    stored = {key: value for key, value in manifest["provenance"].items() if key in known}
    stored["skipped"] = tuple(stored.get("skipped", ()))
    return Result(
        name=manifest["name"],
        config=manifest["config"],
        provenance=Provenance(**stored),
        model=manifest["model"],
        layers=layers,
        images=images,
        tables=frames["tables"],
        samples=frames["samples"],
        schema=manifest["schema"],
    )


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ResultError(
            f"{folder} is not a result folder: it has no {MANIFEST}",
            "give the folder that `attnprobe analyze --out` wrote",
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema = int(manifest["schema"])
        _check_names(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path} is damaged: {error!r}", "run the analysis again") from error
    if schema > SCHEMA_VERSION:
        raise ResultError(
            f"{folder} has schema {schema}; this attnprobe reads up to {SCHEMA_VERSION}",
            "upgrade attnprobe",
        )
    return manifest


def _check_names(files: dict[str, list[str]]) -> None:
    """Refuse a manifest without its tables, or with names that leave the folder."""
    for name in [*files["tables"], *files.get("samples", [])]:
        if not name.replace("_", "").isalnum():
            raise ValueError(f"{name!r} is no table name")


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from both
        raise ResultError(f"cannot read {path}: {error}", "run the analysis again") from error


def _write(result: Result, folder: Path) -> None:
    tables = {**result.tables, "layers": result.layers, "images": result.images}
    for kind, frames in (("tables", tables), ("samples", result.samples)):
        (folder / kind).mkdir()
        for name, frame in frames.items():
            frame.to_parquet(folder / kind / f"{name}.parquet", index=False)
    result.tables["layer_means"].to_csv(folder / "summary.csv", index=False)
    settings = {key: value for key, value in result.config.items() if value is not None}
    (folder / "config.toml").write_text(tomlkit.dumps(settings), encoding="utf-8")
    manifest = {
        "schema": result.schema,
        "name": result.name,
        "config": result.config,
        "provenance": asdict(result.provenance),
        "model": result.model,
        "files": {"tables": sorted(tables), "samples": sorted(result.samples)},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _swap(staging: Path, folder: Path) -> None:
    """Put `staging` where `folder` is; the old content survives until the new one stands."""
    if not folder.exists():
        staging.rename(folder)
        return
    retired = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    folder.rename(retired)
    staging.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)
