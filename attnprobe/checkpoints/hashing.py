"""SHA-256 of a file, computed beside the reading of it: hashing lets other threads run."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE = 2**22


@contextmanager
def digesting(path: Path) -> Iterator[Callable[[], str]]:
    """Hash a file in the background; the function yielded waits for the digest.

    Leaving the context gives up what is not finished, so that a failed load does not wait.

    Raises:
        OSError: From the function: the file could not be read.
    """
    stop, found = threading.Event(), _Found()
    thread = threading.Thread(target=_hash, args=(path, stop, found), daemon=True)
    thread.start()

    def result() -> str:
        thread.join()
        if found.error is not None:
            raise found.error
        return found.digest

    try:
        yield result
    finally:
        stop.set()
        thread.join()


class _Found:
    digest = ""
    error: OSError | None = None


def _hash(path: Path, stop: threading.Event, found: _Found) -> None:
    state, piece = hashlib.sha256(), bytearray(PIECE)
    view = memoryview(piece)
    try:
        with path.open("rb", buffering=0) as file:
            while not stop.is_set() and (count := file.readinto(piece)):
                state.update(view[:count])
    except OSError as error:
        found.error = error
    found.digest = state.hexdigest()
