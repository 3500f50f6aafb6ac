"""The checksums that a zip holds of its entries, compared beside other work.

Pages of a mapped file are not verified when they are read; so every stored entry is gone
through once, in a thread. Python's lock is free meanwhile.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from threading import Event

from attnprobe.checkpoints.reading.background import working
from attnprobe.checkpoints.reading.zipdirectory import Entry
from attnprobe.errors import CheckpointError

Check = tuple[Path, mmap, Entry]


@contextmanager
def verified(checks: Sequence[Check]) -> Iterator[None]:
    """Verify entries beside what the context does; leaving it waits for the outcome.

    Raises:
        CheckpointError: An entry does not match its checksum, which explains other errors too.
    """
    with working(lambda stop: _verify(checks, stop)) as outcome:
        try:
            yield
        except Exception:
            outcome()
            raise
        outcome()


def _verify(checks: Sequence[Check], stop: Event) -> None:
    for path, data, entry in checks:
        if stop.is_set():
            return
        if not entry.packed and not _matches(data, entry):
            raise CheckpointError(
                f"{path} is damaged: entry {entry.name[:80]!a} does not match its checksum",
                "download or copy the file again and compare its hash with the original",
            )


def _matches(data: mmap, entry: Entry) -> bool:
    """Compare in the map, whose pages are needed anyway; writers may leave the checksum out."""
    return entry.crc in (0, zlib.crc32(memoryview(data)[entry.start : entry.stop]))
