"""Where the bytes of images lie: files of their own, members of archives, one array.

Places are kept in arrays rather than in objects: worker processes share them, and a million
files cost little more than their names.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnprobe.images.sources import read_file, text


@dataclass(frozen=True)
class Packed:
    """Byte strings end to end.

    Attributes:
        data: uint8 [total].
        edges: int64 [n + 1].
    """

    data: np.ndarray
    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.edges[index] : self.edges[index + 1]].tobytes()


def packed(strings: Iterable[bytes]) -> Packed:
    """Put byte strings end to end.

    >>> packed([b"one", b"two"])[1]
    b'two'
    """
    held = list(strings)
    edges = np.cumsum([0, *map(len, held)], dtype=np.int64)
    return Packed(np.frombuffer(b"".join(held), dtype=np.uint8), edges)


@dataclass(frozen=True)
class Blob:
    """Image files end to end in one array, as an npz holds them.

    Attributes:
        title: Name of the file, for messages.
        files: The files.
    """

    title: str
    files: Packed
    hashed = "contents"

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Return the file's name and the place in it."""
        return f"{self.title}#{index:05d}"

    def read(self, index: int) -> bytes:
        """Return one image file."""
        return self.files[index]

    def facts(self) -> Iterator[memoryview]:
        """Yield all files and their edges."""
        first, last = self.files.edges[0], self.files.edges[-1]
        yield np.ascontiguousarray(self.files.data[first:last]).data
        yield (self.files.edges - first).astype("<i8").data


@dataclass(frozen=True)
class Files:
    """Image files below a folder.

    Attributes:
        root: The folder.
        names: Their paths relative to it, as the file system spells them.
    """

    root: Path
    names: Packed
    hashed = "listing"

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path relative to the folder."""
        return text(os.fsdecode(self.names[index]))

    def read(self, index: int) -> bytes:
        """Return one image file.

        Raises:
            ImagesError: It cannot be read.
        """
        return read_file(self.root / os.fsdecode(self.names[index]))

    def facts(self) -> Iterator[bytes]:
        """Yield names and sizes; a file that is gone has size -1."""
        for index in range(len(self)):
            name = self.names[index]
            yield b"%s\0%d\0" % (name, _size(self.root / os.fsdecode(name)))


@dataclass(frozen=True)
class Members:
    """Members of uncompressed tar archives.

    Attributes:
        shards: The archives.
        names: Names of the members.
        shard: Which archive each is in, int32 [n].
        start: Where it begins there in bytes, int64 [n].
        size: Its size in bytes, int64 [n].
    """

    shards: tuple[Path, ...]
    names: Packed
    shard: np.ndarray
    start: np.ndarray
    size: np.ndarray
    hashed = "listing"

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return archive and member."""
        shard = self.shards[self.shard[index]]
        return f"{text(shard.name)}:{text(os.fsdecode(self.names[index]))}"

    def read(self, index: int) -> bytes:
        """Return one member.

        Raises:
            ImagesError: The archive cannot be read.
        """
        shard = self.shards[self.shard[index]]
        return read_file(shard, int(self.start[index]), int(self.size[index]))

    def facts(self) -> Iterator[bytes | memoryview]:
        """Yield names, sizes and where one archive ends."""
        yield self.names.data.data
        for held in (self.names.edges, self.size, self.shard):
            yield held.astype("<i8").data


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
