"""The checksums that a zip holds of its entries, compared beside other work.

Pages of a mapped file are not verified when they are read; so every stored entry is gone
through once, in a thread. Python's lock is free meanwhile.
"""

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

from attnprobe.checkpoints.zipdirectory import Entry
from attnprobe.errors import CheckpointError

Check = tuple[Path, mmap, Entry]


@dataclass
class _Found:
    error: Exception | None = None


@contextmanager
def verified(checks: Sequence[Check]) -> Iterator[None]:
    """Verify entries beside what the context does; leaving it waits for the outcome.

    Raises:
        CheckpointError: An entry does not match its checksum, which explains other errors too.
    """
    stop, found = threading.Event(), _Found()
    thread = threading.Thread(target=_verify, args=(checks, stop, found), daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        _finish(thread, found)
        raise
    except BaseException:  # interrupted: do not wait
        stop.set()
        raise
    _finish(thread, found)


def _finish(thread: threading.Thread, found: _Found) -> None:
    thread.join()
    if found.error is not None:
        raise found.error from None


def _verify(checks: Sequence[Check], stop: threading.Event, found: _Found) -> None:
    for path, data, entry in checks:
        if stop.is_set():
            return
        if not entry.packed and not _matches(data, entry):
            found.error = CheckpointError(
                f"{path} is damaged: entry {entry.name[:80]!a} does not match its checksum",
                "download or copy the file again and compare its hash with the original",
            )
            return


def _matches(data: mmap, entry: Entry) -> bool:
    """Compare in the map, whose pages are needed anyway; writers may leave the checksum out."""
    return entry.crc in (0, zlib.crc32(memoryview(data)[entry.start : entry.stop]))
