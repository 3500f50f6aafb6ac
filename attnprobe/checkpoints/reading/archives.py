"""Torch's zip archives, TorchScript among them: tensors read, code in them never run."""

import sys
from collections.abc import Mapping
from mmap import mmap
from typing import Any

from attnprobe.checkpoints.reading import storages, unpickle, zipdirectory
from attnprobe.checkpoints.reading.storages import Storage
from attnprobe.checkpoints.reading.zipdirectory import Entry
from attnprobe.errors import DISTRUST, CheckpointError

_PICKLE = "data.pkl"
LARGEST_PICKLE = 2**28


def root(entries: Mapping[str, Entry]) -> str | None:
    """Return the folder in the zip that holds torch's pickle, or None where there is none.

    >>> root({"archive/data.pkl": None, "archive/version": None})
    'archive/'
    """
    found = [name for name in entries if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
    if not found:
        return None
    return min(found, key=lambda name: (name.count("/"), name)).removesuffix(_PICKLE)


def is_script(entries: Mapping[str, Entry], place: str) -> bool:
    """Return whether a torch archive is TorchScript, which holds code."""
    return f"{place}constants.pkl" in entries


def read(data: mmap, entries: Mapping[str, Entry], place: str) -> tuple[Any, bool]:
    """Return what a torch archive holds, and whether objects in it were left inert.

    Raises:
        CheckpointError: Its tensors are compressed, which torch never does.
        ValueError: It is damaged.
    """
    pickled = entries[f"{place}{_PICKLE}"]
    stored = [entry for name, entry in entries.items() if name.startswith(f"{place}data")]
    packed = [entry for entry in stored if entry.packed]
    if packed:
        raise CheckpointError(
            f"{packed[0].name[:80]!a} is compressed ({packed[0].unpacked} bytes in "
            f"{packed[0].size}), which torch never does",
            DISTRUST,
        )
    if pickled.size > LARGEST_PICKLE:
        raise ValueError(f"its pickle has {pickled.size} bytes, expected at most {LARGEST_PICKLE}")
    order = entries.get(f"{place}byteorder")
    swapped = order is not None and zipdirectory.intact(data, order) != sys.byteorder.encode()
    known: dict[str, Storage] = {}

    def stored_at(outside: Any) -> Storage:
        wanted = storages.declared(outside)
        if wanted.key not in known:
            entry = entries.get(f"{place}data/{wanted.key}")
            if entry is None:
                raise ValueError(f"storage {wanted.key[:40]!a} is not in the file")
            known[wanted.key] = Storage(data, entry.start, entry.size, wanted.dtype, swapped)
        return storages.checked(wanted, known[wanted.key])

    return unpickle.load(zipdirectory.intact(data, pickled), stored_at)
