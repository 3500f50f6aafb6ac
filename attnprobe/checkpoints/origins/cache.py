"""The folder of downloaded checkpoints: where each lies, and what is recorded beside it."""

import json
import os
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path

from attnprobe.catalogue import CheckpointRecord
from attnprobe.catalogue.records import FILE, is_file_name

VARIABLE = "ATTNPROBE_CACHE"


@dataclass(frozen=True)
class Receipt:
    """What is recorded beside a downloaded file.

    Attributes:
        address: Where it came from.
        size: Its bytes.
        sha256: Its hash.
        fetched: When, ISO 8601 in UTC.
    """

    address: str
    size: int
    sha256: str
    fetched: str = ""


def folder() -> Path:
    """Return the folder of downloaded checkpoints, which need not exist."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser() / "checkpoints"
    import platformdirs

    return platformdirs.user_cache_path("attnprobe", appauthor=False) / "checkpoints"


def place(record: CheckpointRecord) -> Path:
    """Return where the file of a record lies, or has to be put by hand."""
    return folder() / record.name / file_name(record)


def file_name(record: CheckpointRecord) -> str:
    """Return the name of a record's file: its own, or the last part of its address.

    >>> file_name(CheckpointRecord("a", "https://a.org/x/vit%20b.pth?raw=1"))
    'vit b.pth'
    """
    if record.file:
        return record.file
    source = record.source.removeprefix(FILE)
    path = urllib.parse.urlsplit(source).path if "://" in source else source
    name = urllib.parse.unquote(path.rpartition("/")[2])
    return name if is_file_name(name) else "checkpoint"


def receipt(path: Path) -> Receipt | None:
    """Return what is recorded beside a file, if that still fits the file."""
    try:
        table = json.loads(_beside(path).read_text(encoding="utf-8"))
        found = Receipt(**table)
        return found if found.size == path.stat().st_size else None
    except (OSError, ValueError, TypeError):  # absent, damaged, or of another file
        return None


def record(path: Path, note: Receipt) -> None:
    """Write a receipt beside a file."""
    part = _beside(path).with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(asdict(note), indent=2) + "\n", encoding="utf-8")
    part.replace(_beside(path))


def forget(path: Path) -> None:
    """Remove a file and its receipt."""
    for item in (path, _beside(path)):
        item.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
