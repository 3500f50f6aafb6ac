"""SHA-256 of the files of a checkpoint, computed beside the reading of them."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event

from attnprobe.checkpoints.reading.background import working

PIECE = 2**22


def digest(path: Path, stop: Event | None = None) -> str:
    """Return the SHA-256 of a file, streamed; of what was read where it was stopped.

    Raises:
        OSError: The file cannot be read.
    """
    state, piece = hashlib.sha256(), bytearray(PIECE)
    view = memoryview(piece)
    with path.open("rb", buffering=0) as file:
        while not (stop and stop.is_set()) and (count := file.readinto(piece)):
            state.update(view[:count])
    return state.hexdigest()


def digesting(paths: Sequence[Path]) -> AbstractContextManager[Callable[[], str]]:
    """Hash a checkpoint in the background; the function of the context waits for the digest.

    The digest of one file is its own, that of several the SHA-256 of their digests in order.
    Leaving the context gives up what is not finished, so that a failed load does not wait.
    """

    def job(stop: Event) -> str:
        found = [digest(path, stop) for path in paths]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()

    return working(job)
