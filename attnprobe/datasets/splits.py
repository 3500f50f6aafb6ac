"""How data sets spell their parts: training, validation, test."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from attnprobe.errors import ImagesError
from attnprobe.images.sources import is_image_name

_SPELLINGS = (
    ("train", "training"),
    ("val", "valid", "validation", "eval"),
    ("test", "testing"),
)
_WORDS = frozenset(word for words in _SPELLINGS for word in words)


def spellings(split: str) -> tuple[str, ...]:
    """Return the words for a split, the likeliest first; validation may be called test.

    >>> spellings("validation")
    ('validation', 'val', 'valid', 'eval', 'test')
    """
    for words in _SPELLINGS:
        if split in words:
            others = tuple(word for word in words if word != split)
            return (split, *others, *(("test",) if "val" in words else ()))
    return (split,)


def choose(label: str, found: Iterable[str], split: str) -> str:
    """Return the word among those found that means the split.

    Raises:
        ImagesError: None does.
    """
    held = list(found)
    for word in spellings(split):
        if word in held:
            return word
    raise ImagesError(
        f"{label} has no split {split!r}, only {', '.join(sorted(held))}", "name one of these"
    )


def folder_of(path: Path, split: str) -> Path:
    """Return the folder of a split, or the folder itself if it is not divided.

    A sub-folder named like a split is one if it has sub-folders, or archives, or if every
    sub-folder is named like a split; otherwise it may well be a class (`train` is one of
    COCO's).

    Raises:
        ImagesError: The folder is divided, but has not that split.
    """
    inside = _folders(path)
    parts = [name for name in inside if name in _WORDS or name == split]
    divided = [name for name in parts if len(parts) == len(inside) or _is_part(path / name)]
    return path / choose(str(path), divided, split) if divided else path


def files_of(folder: Path, suffix: str, split: str) -> list[Path]:
    """Return the archives of a folder that holds archives, sorted; those of a split if named so.

    A folder of `set-train-000.tar`, `set-validation-000.tar`, ... is divided by these words.

    Raises:
        ImagesError: Names tell splits, but not the one asked for.
    """
    names = _named(folder, suffix)
    words = {name: _WORDS & set(re.split(r"[^a-z]+", name.lower())) for name in names}
    known = set().union(*words.values())
    if len(known) > 1:
        word = choose(str(folder), known, split)
        names = [name for name in names if word in words[name]]
    return [folder / name for name in names]


def holds(folder: Path, suffix: str) -> bool:
    """Whether a folder, or what it is divided into, holds archives of a kind and no images."""
    parts = [folder, *(folder / name for name in _folders(folder) if name in _WORDS)]
    loose = any(is_image_name(entry.name) for part in parts for entry in _entries(part))
    return not loose and any(_named(part, suffix) for part in parts)


def _is_part(folder: Path) -> bool:
    return bool(_folders(folder) or _named(folder, ".tar") or _named(folder, ".parquet"))


def _folders(path: Path) -> list[str]:
    return sorted(e.name for e in _entries(path) if e.is_dir() and not e.name.startswith("."))


def _named(path: Path, suffix: str) -> list[str]:
    names = (e.name for e in _entries(path) if not e.name.startswith(".") and e.is_file())
    return sorted(name for name in names if name.lower().endswith(suffix))


def _entries(path: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError as error:
        raise ImagesError(
            f"cannot read the folder {path}: {error.strerror}", "make it readable or move it"
        ) from error
