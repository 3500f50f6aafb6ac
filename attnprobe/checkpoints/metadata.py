"""What our own training writes beside weights, checked before it is believed.

The `attnprobe` entry of a safetensors header is JSON that says what shapes cannot: heads,
preprocessing, objective and name.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attnprobe.errors import CheckpointError

LONGEST_TEXT = 300
LARGEST_EPOCH = 1e15  # and no infinity


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_number(item) for item in value) and bool(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(value: Any) -> bool:
    return _numbers(value) and len(value) == 3 and all(isinstance(v, int) and v > 0 for v in value)


def _text(value: Any) -> bool:
    # it is printed: no control characters, no flood
    return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_TEXT


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "architecture": _text,
    "crop_pct": _number,
    "epoch": _number,
    "heads": lambda value: isinstance(value, int) and value > 0,
    "input_size": _size,
    "interpolation": _text,
    "mean": _numbers,
    "model_args": lambda value: isinstance(value, dict),
    "name": _text,
    "objective": _text,
    "std": _numbers,
}


def parse(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """Return the known fields of a file's own metadata; empty where there is none.

    Raises:
        CheckpointError: It is not JSON, or a field has the wrong type.
    """
    try:
        own = json.loads(header.get("attnprobe", "{}"))
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"is not JSON ({error})") from error
    if not isinstance(own, dict):
        raise _wrong(path, "is not a mapping")
    known = {key: value for key, value in own.items() if key in _FIELDS and value is not None}
    for key, value in known.items():
        if not _FIELDS[key](value):
            raise _wrong(path, f"has {key} = {str(value)[:60]!r}, which is of the wrong type")
    return known


def epoch(content: Any, own: Mapping[str, Any]) -> float | None:
    """Return the epoch that a checkpoint says it was saved after, if it says one.

    >>> epoch({"model": {}, "epoch": 30}, {}), epoch({"epoch": "late"}, {})
    (30, None)
    """
    stated = own.get("epoch", _entry(content, "epoch"))
    return stated if _number(stated) and abs(stated) < LARGEST_EPOCH else None


def _entry(content: Any, key: str) -> Any:
    """Look up by the class, because a pickle can give an instance an attribute `get`."""
    return dict.get(content, key) if isinstance(content, dict) else None


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: the attnprobe metadata {what}", "write the file again with attnprobe's training"
    )
