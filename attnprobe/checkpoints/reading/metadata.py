"""What is stated beside weights, checked before it is believed.

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
LARGEST_ARGUMENT = 1_000_000
LARGEST_SIDE = 4096  # masks of shifted windows grow with the square


def _numbers(value: Any) -> bool:
    if not isinstance(value, list) or not 0 < len(value) <= LONGEST_TEXT:
        return False
    return all(_number(item) and abs(item) <= LARGEST_ARGUMENT for item in value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(value: Any) -> bool:
    return (
        _numbers(value)
        and len(value) == 3
        and all(isinstance(v, int) and 0 < v <= LARGEST_SIDE for v in value)
    )


def _text(value: Any) -> bool:
    # it is printed: no control characters, no flood
    return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_TEXT


def _natural(largest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 < value <= largest


def _windows(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 4096 for item in value)


def _arguments(value: Any, depth: int = 4) -> bool:
    """Whether a mapping is fit to be given to a model's constructor."""
    if not isinstance(value, dict) or not depth or len(value) > 100:
        return False
    return all(
        _text(key) and key.isidentifier() and key not in _NO_ARGUMENTS and _plain(item, depth)
        for key, item in value.items()
    )


def _plain(value: Any, depth: int) -> bool:
    if isinstance(value, list):
        return len(value) <= 1000 and all(_plain(item, depth - 1) for item in value) and depth > 0
    if isinstance(value, dict):
        return _arguments(value, depth - 1)
    if _number(value):
        return abs(value) <= LARGEST_ARGUMENT
    return value is None or isinstance(value, bool) or _text(value)


# these make timm read other files
_NO_ARGUMENTS = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
                 "cache_dir")  # fmt: skip
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "act": _text,
    "architecture": _text,
    "crop_pct": _number,
    "depth": _natural(10_000),
    "epoch": _number,
    "heads": _natural(10_000),
    "input_size": _size,
    "interpolation": _text,
    "mean": _numbers,
    "model_args": _arguments,
    "name": _text,
    "norm_eps": lambda value: _number(value) and 0 < value < 1,
    "objective": _text,
    "patch_size": _natural(4096),
    "pretrained_window_sizes": _windows,
    "std": _numbers,
    "width": _natural(1_000_000),
    "window_size": _natural(4096),
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
    wrong = first_wrong(own)
    if wrong:
        raise _wrong(path, wrong)
    return {key: value for key, value in own.items() if key in _FIELDS and value is not None}


def first_wrong(own: Mapping[str, Any]) -> str:
    """Return what is said of the first field of a wrong type or absurd value, if any.

    >>> first_wrong({"heads": 3}), first_wrong({"heads": -3})
    ('', "has heads = '-3', which is of the wrong type or absurd")
    """
    for key, value in own.items():
        if key in _FIELDS and value is not None and not _FIELDS[key](value):
            return f"has {key} = {str(value)[:60]!r}, which is of the wrong type or absurd"
    return ""


def epoch(content: Any, own: Mapping[str, Any]) -> float | None:
    """Return the epoch that a checkpoint says it was saved after, if it says one.

    >>> epoch({"model": {}, "epoch": 30}, {}), epoch({"epoch": "late"}, {})
    (30, None)
    """
    holders = (own, content, _entry(content, "meta"))  # the last is MMEngine's
    for holder in holders:
        stated = _entry(holder, "epoch")
        if _number(stated) and abs(stated) < LARGEST_EPOCH:
            return stated
    return None


def _entry(content: Any, key: str) -> Any:
    """Look up by the class, because a pickle can give an instance an attribute `get`."""
    return dict.get(content, key) if isinstance(content, dict) else None


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: the attnprobe metadata {what}", "write the file again with attnprobe's training"
    )
