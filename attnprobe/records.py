"""Parts end to end in a file, each with its length and checksum."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from attnprobe.parts import Part, arrays_of, check, part_of

MAGIC = b"attnprobe part 1"
HEAD = struct.Struct("<16sQI")  # magic, length, checksum
BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


def write(file: Any, data: bytes) -> None:
    """Write all of `data` to an unbuffered file."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def record(part: Part) -> bytes:
    """Return a part as one record."""
    arrays, text = arrays_of(part)
    data = save(arrays, metadata={"facts": text})
    return HEAD.pack(MAGIC, len(data), zlib.crc32(data)) + data


def records(path: Path, count: int = 2**62) -> Iterator[Part]:
    """Yield the whole records of a file; what follows a damaged one cannot be trusted.

    Args:
        path: The file.
        count: Candidates of the measurement.
    """
    try:
        with path.open("rb") as file:
            left = path.stat().st_size
            while len(head := file.read(HEAD.size)) == HEAD.size:
                magic, length, checksum = HEAD.unpack(head)
                left -= HEAD.size
                if magic != MAGIC or length > left:
                    return
                data = file.read(length)
                left -= length
                if zlib.crc32(data) != checksum:
                    return
                part = part_of(load(data), _facts(data))
                check(part, count)
                yield part
    except (OSError, *BROKEN):
        return


def _facts(data: bytes) -> str:
    """Return the metadata of safetensors, which its reader of bytes leaves out."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]["facts"]
