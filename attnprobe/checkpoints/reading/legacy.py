"""Torch's files from before its zip archives: pickles, then the bytes of every storage."""

import sys
from mmap import mmap
from typing import Any

from attnprobe.checkpoints.reading import storages, unpickle
from attnprobe.checkpoints.reading.storages import Declared, Storage

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_COUNT = 8  # bytes before every storage: how many elements it has


def read(data: mmap) -> tuple[Any, bool]:
    """Return what the file holds, and whether objects in it were left inert.

    The storages lie after the pickle that needs them, so it is followed twice: to see what
    they are, and, once they are found, to view them.

    Raises:
        ValueError: It is no file of torch, or damaged.
    """
    data.seek(0)
    if _plain(data) != MAGIC:
        raise ValueError("a bare pickle, which torch.save does not write")
    if (protocol := _plain(data)) != PROTOCOL:
        raise ValueError(f"it is of protocol {str(protocol)[:20]}, expected {PROTOCOL}")
    _plain(data)  # the machine that wrote it
    start, wanted = data.tell(), dict[str, Declared]()

    def noted(outside: Any) -> Any:
        if _is_class(outside):
            return outside[1]
        found = storages.declared(outside)
        return wanted.setdefault(found.key, found)

    unpickle.load(data, noted, builders={})
    found = _located(data, _plain(data), wanted)
    data.seek(start)

    def stored_at(outside: Any) -> Any:
        if _is_class(outside):
            return outside[1]
        declared = storages.declared(outside)
        if declared.key not in found:
            raise ValueError(f"storage {declared.key[:40]!a} is not in the file")
        return storages.checked(declared, found[declared.key])

    return unpickle.load(data, stored_at)


def _is_class(outside: Any) -> bool:
    """Whether it is the class of a module that was pickled whole, with its source code."""
    return isinstance(outside, tuple) and len(outside) == 4 and outside[0] == "module"


def _plain(data: Any) -> Any:
    return unpickle.load(data, storages.declared)[0]


def _located(data: mmap, keys: Any, wanted: dict[str, Declared]) -> dict[str, Storage]:
    """Return every storage by key, in the order in which the file says that they follow."""
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise ValueError("it does not say which storages follow")
    place, found = data.tell(), dict[str, Storage]()
    for key in keys:
        if key not in wanted or key in found:
            raise ValueError(f"storage {key[:40]!a} belongs to no tensor, or comes twice")
        count = int.from_bytes(data[place : place + _COUNT], "little")
        size = count * wanted[key].dtype.itemsize
        place += _COUNT
        if size > len(data) - place:
            left = max(0, len(data) - place)
            raise ValueError(f"storage {key[:40]!a} has {size} bytes, {left} are left in the file")
        found[key] = Storage(data, place, size, wanted[key].dtype, sys.byteorder == "big")
        place += size
    if place != len(data):
        raise ValueError(f"{len(data) - place} bytes follow its last tensor")
    return found
