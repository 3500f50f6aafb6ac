"""The directory of a zip file, checked before anything in the file is read.

Entries must lie inside the file, apart from each other and under different names; so nothing
can be larger than the file that claims it.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any

MOST_BYTES = 8_000_000  # of the directory: about a hundred thousand entries
_LOCAL = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


@dataclass(frozen=True)
class Entry:
    """One file in a zip.

    Attributes:
        name: Its name.
        start: First byte in the zip.
        size: Bytes there.
        unpacked: Bytes once unpacked.
        crc: Checksum of the unpacked bytes; zero where the writer left it out.
        packed: Whether they are compressed.
    """

    name: str
    start: int
    size: int
    unpacked: int
    crc: int
    packed: bool

    @property
    def stop(self) -> int:
        """First byte after it."""
        return self.start + self.size


@dataclass(frozen=True)
class _Bounded:
    """A file for zipfile that refuses to read a directory of any size at once."""

    data: mmap

    def read(self, size: int = -1) -> bytes:
        if size > MOST_BYTES:
            raise ValueError(f"its directory claims {size} bytes, expected at most {MOST_BYTES}")
        return self.data.read(size)

    def seek(self, *place: Any) -> int:
        self.data.seek(*place)
        return self.data.tell()

    def tell(self) -> int:
        return self.data.tell()


def entries(data: mmap) -> dict[str, Entry]:
    """Return every entry by name.

    Raises:
        ValueError: The directory is damaged, or entries overlap, repeat or lie outside.
    """
    file: Any = _Bounded(data)
    with zipfile.ZipFile(file) as archive:
        listed = archive.infolist()
        end = archive.start_dir
    found: dict[str, Entry] = {}
    for info in listed:
        if info.filename in found:
            raise ValueError(f"two entries are named {info.filename[:80]!a}")
        found[info.filename] = _entry(data, info)
    _check_apart(found, end)
    return found


def _entry(data: mmap, info: zipfile.ZipInfo) -> Entry:
    place = info.header_offset
    if not 0 <= place <= len(data) - _LOCAL.size:
        raise ValueError(f"entry {info.filename[:80]!a} lies outside the file")
    signature, name, extra = _LOCAL.unpack_from(data, place)
    if signature != b"PK\x03\x04" or info.flag_bits & 1:
        raise ValueError(f"entry {info.filename[:80]!a} has no header, or is encrypted")
    start, packed = place + _LOCAL.size + name + extra, info.compress_type != zipfile.ZIP_STORED
    if not packed and info.compress_size != info.file_size:
        raise ValueError(f"entry {info.filename[:80]!a} has two sizes")
    size = info.compress_size
    return Entry(info.filename, start, size, info.file_size, info.CRC, packed)


def _check_apart(found: Mapping[str, Entry], end: int) -> None:
    last = 0
    for entry in sorted(found.values(), key=lambda entry: entry.start):
        if entry.start < last:
            raise ValueError(f"entry {entry.name[:80]!a} overlaps another")
        last = entry.stop
        if last > end:
            raise ValueError(f"entry {entry.name[:80]!a} reaches beyond the entries")


def intact(data: mmap, entry: Entry) -> bytes:
    """Return the bytes of a small entry that is stored as it is.

    Raises:
        ValueError: They do not match their checksum.
    """
    content = data[entry.start : entry.stop]
    if entry.crc not in (0, zlib.crc32(content)):
        raise ValueError(f"entry {entry.name[:80]!a} does not match its checksum")
    return content
