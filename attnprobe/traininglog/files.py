"""Files of a run, read whole once their size is known; one way to say that one is damaged."""

from pathlib import Path

from attnprobe.errors import ResultError

AGAIN = "resume the training with --resume, or restore the file"


def damaged(path: Path, reason: object) -> ResultError:
    """Return the error that names a damaged file and what is wrong with it."""
    return ResultError(f"{path} is damaged: {reason!s:.200}", AGAIN)


def content(path: Path, largest: int) -> bytes:
    """Return the bytes of a file.

    Args:
        path: The file.
        largest: Bytes, at most.

    Raises:
        ResultError: It is absent, no regular file, too large, or cannot be read.
    """
    if not path.exists():
        raise ResultError(f"{path.parent} has no {path.name}", AGAIN)
    if not path.is_file():  # opening a pipe would wait for its other end
        raise damaged(path, "it is not a regular file")
    try:
        if (size := path.stat().st_size) > largest:
            raise damaged(path, f"it has {size} bytes, more than {largest}")
        return path.read_bytes()
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}", AGAIN) from error


def text(path: Path, largest: int) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        ResultError: As for `content`, or it is not UTF-8.
    """
    try:
        return content(path, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, error) from error
