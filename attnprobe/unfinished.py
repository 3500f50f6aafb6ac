"""A measurement on disk while it is under way, so that kill -9 costs one batch.

A folder beside the output holds `state.json`, which says what is measured, and journals, one a
process, to which a part is appended after every batch. A journal that has grown is written anew
as one segment, without the features whose mini-batch is complete, and begun again. A record that
was cut off is the last one of its journal, and is left out.
"""

import json
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from attnprobe.errors import OutputError
from attnprobe.parts import Part, arrays_of, joined, part_of

STATE = "state.json"
JOURNAL, SEGMENT = ".journal", ".segment"
MAGIC = b"attnprobe part 1"
HEAD = struct.Struct("<16sQI")  # magic, length, checksum
LARGE = 64 << 20  # bytes of a journal before it is written anew
BROKEN = (ValueError, KeyError, TypeError, SafetensorError)


@dataclass
class Unfinished:
    """The state of a measurement that is under way.

    Attributes:
        folder: Where it is kept.
        token: What the files of this process are called.
    """

    folder: Path
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _file: IO[bytes] | None = None
    _segments: int = 0

    def begin(self, facts: dict[str, Any]) -> None:
        """Write what is measured; by the main process, before the others append.

        Raises:
            OutputError: The folder cannot be written.
        """
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f"{STATE}.{self.token}"
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
            temporary.replace(self.folder / STATE)

    def facts(self) -> dict[str, Any] | None:
        """Return what is measured; None where nothing was begun.

        Raises:
            OutputError: The folder is damaged.
        """
        try:
            return json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{self.folder} holds no state that can be read: {error}",
                "remove it, or --overwrite",
            ) from error

    def files(self) -> list[str]:
        """Return the names of the files with parts that this process can see."""
        if not self.folder.is_dir():
            return []
        kinds = {JOURNAL, SEGMENT}
        return sorted(path.name for path in self.folder.iterdir() if path.suffix in kinds)

    def parts(self, names: Sequence[str]) -> list[Part]:
        """Return the parts of some files, each image once.

        A segment and the journal it was made from may both be there after a crash.
        """
        found: list[Part] = []
        seen: set[int] = set()
        for name in sorted(names, key=lambda name: (not name.endswith(SEGMENT), name)):
            for part in _records(self.folder / name):
                if not part.seen & seen:
                    found.append(part)
                    seen |= part.seen
        return found

    def append(self, part: Part, waits: Callable[[int], bool]) -> None:
        """Put a part on disk.

        Args:
            part: What a batch gave.
            waits: Whether the features of an image still wait for their mini-batch.

        Raises:
            OutputError: The disk is full, or the folder is gone.
        """
        with _writing(self.folder):
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = self._journal().open("ab")
            self._file.write(_record(part))
            self._file.flush()
            if self._file.tell() > LARGE:
                self._compact(waits)

    def remove(self) -> None:
        """Remove everything; what was measured is saved elsewhere."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close the journal of this process."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _journal(self) -> Path:
        return self.folder / f"{self.token}-{self._segments:05d}{JOURNAL}"

    def _compact(self, waits: Callable[[int], bool]) -> None:
        """Write the journal anew as one segment, and begin another one."""
        journal = self._journal()
        self.close()
        whole = joined(_records(journal))
        kept = np.array([waits(number) for number in whole.pending.tolist()], dtype=bool)
        whole = replace(
            whole,
            pending=whole.pending[kept] if kept.any() else whole.pending[:0],
            features={n: x[kept] for n, x in whole.features.items()} if kept.any() else {},
        )
        temporary = journal.with_suffix(".partial")
        temporary.write_bytes(_record(whole))
        temporary.replace(journal.with_suffix(SEGMENT))
        journal.unlink()
        self._segments += 1


def _record(part: Part) -> bytes:
    arrays, text = arrays_of(part)
    data = save(arrays, metadata={"facts": text})
    return HEAD.pack(MAGIC, len(data), zlib.crc32(data)) + data


def _records(path: Path) -> Iterator[Part]:
    """Yield the whole records of a file; what follows a damaged one cannot be trusted."""
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
                yield part_of(load(data), _facts(data))
    except (OSError, *BROKEN):
        return


def _facts(data: bytes) -> str:
    """Return the metadata of safetensors, which its reader of bytes leaves out."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]["facts"]


class _writing:  # noqa: N801 - reads as a word at its place
    """Give what the disk says as one error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise OutputError(
                f"cannot keep what is measured in {self.folder}: {error.strerror or error}",
                "free some disk or choose another --out, then give the command with --resume",
            ) from error
