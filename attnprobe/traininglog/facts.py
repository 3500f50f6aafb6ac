"""The manifest of a training run: every fact of its kind before any is believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnprobe.errors import ResultError
from attnprobe.results.folders import MANIFEST
from attnprobe.traininglog import files
from attnprobe.types import SCHEMA_VERSION

STATUSES = ("running", "finished", "interrupted", "diverged")
LARGEST = 2**63
LARGEST_FILE = 16 * 2**20  # bytes
LONGEST = 10_000  # characters of a text
DEEPEST = 8

Fits = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_amount(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < LARGEST)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_named_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


NEEDED: dict[str, Fits] = {
    **dict.fromkeys(("name", "objective", "status"), _is_text),
    **dict.fromkeys(("steps", "steps_per_epoch", "batch_size"), _is_positive),
    **dict.fromkeys(("schema", "step"), _is_count),
    **dict.fromkeys(("model", "data"), lambda value: isinstance(value, dict)),
}
OPTIONAL: dict[str, Fits] = {
    **dict.fromkeys(("title", "recipe", "command", "device", "precision", "created"), _is_text),
    **dict.fromkeys(("licence", "weights", "objective_kind"), _is_text),
    **dict.fromkeys(("epochs", "processes"), _is_count),
    **dict.fromkeys(("seconds", "images_per_second"), _is_amount),
    "skipped": _is_texts,
    "versions": _is_named_texts,
}
PARTS: dict[str, dict[str, Fits]] = {
    "model": {
        **dict.fromkeys(("architecture", "init"), _is_text),
        **dict.fromkeys(("parameters", "classes"), _is_count),
        "model_args": lambda value: isinstance(value, dict),
    },
    "data": {
        **dict.fromkeys(("label", "sha256", "hashed"), _is_text),
        **dict.fromkeys(("images", "classes"), _is_count),
    },
}


def read(folder: Path) -> dict[str, Any]:
    """Return the checked manifest of a training run.

    Raises:
        ResultError: It is absent, damaged or of a newer schema.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(files.text(path, LARGEST_FILE))
        _check_plain(found)
        schema = found["schema"]
        if _is_count(schema) and schema > SCHEMA_VERSION:
            raise ResultError(
                f"{folder} has schema {schema}; this attnprobe reads up to {SCHEMA_VERSION}",
                "upgrade attnprobe",
            )
        _check(found, NEEDED, "", needed=True)
        _check(found, OPTIONAL, "", needed=False)
        for part, kinds in PARTS.items():
            _check(found[part], kinds, f"{part}.", needed=False)
        if found["status"] not in STATUSES or found["step"] > found["steps"]:
            raise ValueError(f"status {found['status']!r:.40} at step {found['step']}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise files.damaged(path, repr(error)) from error
    return found


def _check(found: dict[str, Any], kinds: dict[str, Fits], where: str, *, needed: bool) -> None:
    for key, fits in kinds.items():
        if (needed or key in found) and not fits(found[key]):
            raise TypeError(f"{where}{key} cannot be {found[key]!r:.60}")


def _check_plain(value: Any, depth: int = 0) -> None:
    """Refuse long texts, numbers that are not finite, and deep nesting."""
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, depth + 1)
    elif isinstance(value, str):
        if len(value) > LONGEST:
            raise ValueError(f"{value!r:.40} is too long")
    elif isinstance(value, int | float) and not abs(value) < LARGEST:  # NaN is refused too
        raise ValueError(f"a number cannot be {value!r:.40}")
