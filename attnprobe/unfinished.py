"""A measurement on disk while it is under way, so that kill -9 costs one batch.

A folder beside the output holds `state.json`, which says what is measured and gives the run a
token, and journals of that token, one a process, to which a part is appended after every batch. A
journal that has grown is written anew as one segment, without the features whose mini-batch is
complete, and begun again. A record that was cut off or damaged ends its file.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from attnprobe import locking
from attnprobe.errors import OutputError
from attnprobe.parts import Part, joined
from attnprobe.records import record, records, write

STATE, LOCK = "state.json", "lock"
JOURNAL, SEGMENT = ".journal", ".segment"
LARGE = 64 << 20  # bytes of a journal before it is written anew


def new_token() -> str:
    """Return a name for a run or a process that no other has."""
    return uuid.uuid4().hex[:12]


@dataclass
class Unfinished:
    """The state of a measurement that is under way.

    Attributes:
        folder: Where it is kept.
        run: Token of the run; files of other runs are not its.
    """

    folder: Path
    run: str = ""
    _token: str = field(default_factory=new_token)
    _file: Any = None
    _lock: IO[bytes] | None = None
    _segments: int = 0
    _before: Path | None = None  # a segment in which features or sums wait
    _size: int = 0  # bytes of it

    def claim(self) -> None:
        """Keep other commands from measuring into the same place; by the main process.

        Raises:
            OutputError: One does already, or the folder cannot be written.
        """
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            held = f"another command is measuring into {self.folder}"
            remedy = "wait for it, or choose another --out"
            self._lock = locking.hold(self.folder / LOCK, held, remedy)

    def begin(self, facts: dict[str, Any]) -> None:
        """Write what is measured; by the main process, before the others append.

        Raises:
            OutputError: The folder cannot be written.
        """
        with _writing(self.folder):
            temporary = self.folder / f"{STATE}.{self._token}"
            temporary.write_text(json.dumps({**facts, "run": self.run}, indent=1), encoding="utf-8")
            temporary.replace(self.folder / STATE)

    def facts(self) -> dict[str, Any] | None:
        """Return what is measured; None where nothing was begun.

        Raises:
            OutputError: The state cannot be read.
        """
        try:
            found = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            if not (isinstance(found, dict) and isinstance(found.get("run"), str)):
                raise ValueError("it does not name its run")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise unreadable(self.folder, error) from error
        return found

    def files(self, run: str = "") -> list[str]:
        """Return the names of the files with parts that this process can see.

        Args:
            run: Of this run only.
        """
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError:
            return []
        kinds = (JOURNAL, SEGMENT)
        return sorted(name for name in names if name.endswith(kinds) and name.startswith(run))

    def parts(self, names: Sequence[str], count: int) -> Iterator[Part]:
        """Yield the parts of some files, each image once.

        A segment and the journal it was made from may both be there after a crash.

        Args:
            names: The files.
            count: Candidates of the measurement.
        """
        seen: set[int] = set()
        for name in sorted(names, key=lambda name: (not name.endswith(SEGMENT), name)):
            for part in records(self.folder / name, count):
                if not part.seen & seen:
                    seen |= part.seen
                    yield part

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
                self._file = self._journal().open("ab", buffering=0)
            write(self._file, record(part))
            if self._file.tell() > max(LARGE, self._size):
                self._compact(waits)

    def forget_others(self) -> None:
        """Remove the files of other runs, which were replaced, from this process's disk."""
        for name in self.files():
            if not name.startswith(self.run):
                with suppress(OSError):
                    (self.folder / name).unlink()

    def close(self) -> None:
        """Close the journal of this process, and let other commands in."""
        for held in (self._file, self._lock):
            if held is not None:
                held.close()
        self._file = self._lock = None

    def _journal(self) -> Path:
        return self.folder / f"{self.run}-{self._token}-{self._segments:05d}{JOURNAL}"

    def _compact(self, waits: Callable[[int], bool]) -> None:
        """Write the journal anew as one segment, and begin another one.

        A segment in which something waits is taken into the next one, as it shrinks there.
        """
        journal = self._journal()
        self._file.close()
        self._file = None
        older = list(records(self._before)) if self._before else []
        whole = joined([*older, *records(journal)])
        kept = np.array([waits(number) for number in whole.pending.tolist()], dtype=bool)
        features = {n: x[kept] for n, x in whole.features.items()} if kept.any() else {}
        whole = replace(whole, pending=whole.pending[kept], features=features)
        segment, temporary = journal.with_suffix(SEGMENT), journal.with_suffix(".partial")
        temporary.write_bytes(record(whole))
        if self._before:
            # the new one has everything of the old one: neither order may lose or double it
            temporary.replace(self._before)
            segment = self._before
        else:
            temporary.replace(segment)
        journal.unlink()
        self._before = segment if whole.features or whole.sums else None
        self._size = segment.stat().st_size if self._before else 0
        self._segments += 1


def unreadable(folder: Path, reason: object) -> OutputError:
    """Return what to raise at a state that is damaged."""
    return OutputError(
        f"{folder} holds no state that can be read: {reason!r:.200}",
        "remove it, or measure anew with --overwrite",
    )


def remove_all(folder: Path) -> None:
    """Remove a state of whatever run, and those of a collection below it."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.unlink()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Give what the disk says as one error."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot keep what is measured in {folder}: {error.strerror or error}",
            "make room there, then give the command with --resume",
        ) from error
