"""A folder is held by one command at a time."""

import fcntl
import time
from pathlib import Path
from typing import IO

from attnprobe.errors import OutputError

# workers that decode images hold what their command held, and notice its death only so late
PATIENCE = 7.0  # seconds
_PULSE = 0.1


def hold(path: Path, cause: str, remedy: str) -> IO[bytes]:
    """Lock a file until it is closed, or this process dies.

    Args:
        path: The file; it is made. A file system without locks is no obstacle.
        cause: What is said where another process holds it, for longer than its workers could.
        remedy: What to do then.

    Raises:
        OutputError: Another process holds it.
    """
    lock = path.open("wb")
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                lock.close()
                raise OutputError(cause, remedy) from error
            time.sleep(_PULSE)
        except OSError:
            return lock
        else:
            return lock
