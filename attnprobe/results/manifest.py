"""The manifest of a result folder, checked before anything in it is believed."""

import json
import os
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from attnprobe.errors import ResultError
from attnprobe.results.folders import MANIFEST
from attnprobe.types import SCHEMA_VERSION, Provenance

KINDS = {"name": str, "config": dict, "provenance": dict, "model": dict}
NEEDED = ("layers", "images", "layer_means")


def kind_of(folder: Path) -> str:
    """Return what a folder holds: result, comparison, track, ..., or nothing ("").

    >>> kind_of(Path("nowhere"))
    ''
    """
    path = folder / MANIFEST
    if not os.path.isfile(path):  # noqa: PTH113 - unlike pathlib's it never raises
        return ""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found.get("kind", "result"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return "result"  # reading it as one says what is wrong


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of a result folder, its provenance as a `Provenance`.

    Raises:
        ResultError: It is absent, damaged or of a newer schema.
    """
    path = folder / MANIFEST
    if not os.path.isfile(path):  # noqa: PTH113 - unlike pathlib's it never raises
        raise ResultError(
            f"{folder} is not a result folder: it has no {MANIFEST}",
            "give the folder that `attnprobe analyze --out` wrote",
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        _check_kind(folder, manifest)
        _check_schema(folder, manifest["schema"])
        for key, kind in KINDS.items():
            _check_type(key, manifest[key], kind)
        _check_files(manifest["files"])
        return {**manifest, "provenance": _provenance(manifest["provenance"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultError(f"{path} is damaged: {error!r}", "run the analysis again") from error


def _check_kind(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse a comparison or a track, which hold several results."""
    kind = manifest.get("kind", "result")
    if kind != "result":
        raise ResultError(
            f"{folder} holds a {kind!s:.20}, not the result of one model",
            "give a folder that `attnprobe analyze --out` wrote",
        )


def _check_schema(folder: Path, schema: Any) -> None:
    _check_type("schema", schema, int)
    if schema > SCHEMA_VERSION:
        raise ResultError(
            f"{folder} has schema {schema}; this attnprobe reads up to {SCHEMA_VERSION}",
            "upgrade attnprobe",
        )


def _check_files(files: Any) -> None:
    """Refuse a manifest without its tables, or with names that leave the folder."""
    _check_type("files", files, dict)
    for kind in ("tables", "samples", "arrays"):
        for name in _texts(kind, files.get(kind, [])):
            if not name.replace("_", "").isalnum():
                raise ValueError(f"{name!r} is no table name")
    for name in NEEDED:
        if name not in files.get("tables", []):
            raise ValueError(f"the table {name!r} is missing")


def _provenance(stored: dict[str, Any]) -> Provenance:
    """Keep the fields this version knows, each of its own type."""
    kinds = get_type_hints(Provenance)
    known = {key: value for key, value in stored.items() if key in kinds}
    known["skipped"] = tuple(_texts("skipped", known.get("skipped", [])))
    for key, value in known.items():
        kind = get_origin(kinds[key]) or kinds[key]
        _check_type(key, value, (int, float) if kind is float else kind)
    return Provenance(**known)


def _texts(key: str, value: Any) -> list[str]:
    _check_type(key, value, list)
    for item in value:
        _check_type(f"an entry of {key}", item, str)
    return value


def _check_type(key: str, value: Any, kind: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{key} cannot be {value!r:.60}")
