"""Arrays in a zip of .npy files, checked before anything is allocated. Torch-free."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

LARGEST_RATIO = 1100  # deflate shrinks a thousandfold at best
MOST_ENTRIES = 100_000
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# what numpy and zipfile raise for damaged, encrypted, oddly packed and too large archives
UNREADABLE = (
    *(KeyError, ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error),
    *(RuntimeError, NotImplementedError, TypeError, OverflowError, SyntaxError),
)


def read(path: Path, *, limit: int | None = None) -> dict[str, np.ndarray]:
    """Return every array of a file by name; nothing in it is unpickled.

    Args:
        path: The file.
        limit: Bytes that all arrays together may take, or None for what memory holds.

    Raises:
        ValueError: It is no file or has too many arrays, one claims more than the file holds, or
            all claim more than the limit; see `UNREADABLE` for the others.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise ValueError("it is not a regular file")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise ValueError(f"it holds {len(entries)} arrays, more than {MOST_ENTRIES}")
        total = 0
        for entry in entries:
            total += _check_claim(archive, entry)
            if limit is not None and total > limit:
                raise ValueError(f"its arrays claim more than {limit} bytes")
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _check_claim(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Return the bytes of an array; refuse more of them than its zip entry can hold."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{entry.filename} has version {version}")
        shape, _, dtype = _HEADERS[version](file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > entry.file_size or entry.file_size > LARGEST_RATIO * (entry.compress_size + 100):
        raise ValueError(
            f"{entry.filename} claims {claimed} bytes in an entry of {entry.compress_size} bytes"
        )
    return max(claimed, entry.file_size)
