"""Arrays in a zip of .npy files, checked before anything is allocated. Torch-free."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

LARGEST_RATIO = 1100  # deflate shrinks a thousandfold at best
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# what numpy and zipfile raise for damaged, encrypted, oddly packed and too large archives
UNREADABLE = (
    *(KeyError, ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error),
    *(RuntimeError, NotImplementedError),
)


def read(path: Path) -> dict[str, np.ndarray]:
    """Return every array of a file by name; nothing in it is unpickled.

    Raises:
        ValueError: An array claims more than the file holds; see `UNREADABLE` for the others.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            _check_claim(archive, entry)
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _check_claim(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array whose header claims more bytes than its zip entry can hold."""
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
