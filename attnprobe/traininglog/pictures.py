"""Pictures that a run drew of its reconstructions: one PNG an epoch, a row an image."""

import io
import re
import struct
from pathlib import Path

from PIL import Image

from attnprobe.errors import ResultError
from attnprobe.traininglog import files

NAME = re.compile(r"epoch-(\d{1,9})\.png")
MOST = 12  # pictures that are read: what a page shows
MOST_FILES = 100_000
LARGEST_FILE = 64 * 2**20  # bytes
LARGEST_SIDE = 8192  # pixels
SIGNATURE = b"\x89PNG\r\n\x1a\n"
REMEDY = "remove the file; the next training draws it again"


def read(folder: Path) -> list[tuple[int, bytes]]:
    """Return (epoch, PNG file), ascending; of many, some that are evenly spread.

    Raises:
        ResultError: One of them is damaged or too large.
    """
    found = {}
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in entries[:MOST_FILES]:
        if name := NAME.fullmatch(path.name):
            found[int(name[1])] = path
    return [(epoch, _checked(found[epoch])) for epoch in spread(sorted(found), MOST)]


def spread(items: list[int], most: int) -> list[int]:
    """Return some of the items, evenly spread, the first and the last among them.

    >>> spread(list(range(10)), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return items
    return [items[round(at * (len(items) - 1) / (most - 1))] for at in range(most)]


def _checked(path: Path) -> bytes:
    """Return a PNG file that decodes; its size is read before its pixels are."""
    data = files.content(path, LARGEST_FILE)
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        raise ResultError(f"{path} is no PNG file", REMEDY)
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise ResultError(f"{path} has {width} x {height} pixels", REMEDY)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ResultError(f"{path} is damaged: {error!s:.100}", REMEDY) from error
    return data
