"""Where a result is written: refused before the work, put in place all-or-nothing."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attnprobe.errors import OutputError

MANIFEST = "manifest.json"
PREFIX = ".attnprobe-"


def check_output(folder: str | Path, *, overwrite: bool) -> Path:
    """Refuse an output folder before the work, not after it; return its resolved path.

    Raises:
        OutputError: The folder exists and is not empty, or it cannot be written.
    """
    try:
        path = Path(folder).resolve()
        _check_content(path, overwrite=overwrite)
        _check_writable(path)
    except (OSError, ValueError, RuntimeError) as error:  # null bytes, links to themselves
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"cannot write to {str(folder)!r}: {reason}",
            "choose a writable --out or free some disk",
        ) from error
    return path


def place(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then put its content into `folder`.

    Raises:
        OSError: Something cannot be written; what was there before is there still.
    """
    with _parents(folder):
        # an existing folder gets new content and is never renamed: it may be a mount, or where
        # the user is
        exists = folder.is_dir()
        staging = Path(tempfile.mkdtemp(dir=folder if exists else folder.parent, prefix=PREFIX))
        try:
            write(staging)
            if exists:
                _exchange(staging, folder)
            else:
                staging.chmod(0o777 & ~_umask())  # mkdtemp keeps others out; results are shared
                staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _check_content(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that holds something, unless it is a result to be replaced."""
    if not path.name:
        raise OutputError(f"{path} is the root of the file system", "choose another --out")
    if path.is_symlink():  # after resolving, only a link to itself is still a link
        raise OutputError(f"{path} is a link to itself", "choose another --out")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder", "choose another --out")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{path} already holds files", "pass --overwrite or choose another --out")
    if not (path / MANIFEST).is_file():
        raise OutputError(
            f"{path} is not a result folder (it has no {MANIFEST}), so it is not replaced",
            "choose another --out or remove the folder yourself",
        )


def _check_writable(path: Path) -> None:
    """Create the missing folders for a moment, under a temporary name."""
    above = path
    while not os.path.lexists(above):
        above = above.parent
    with tempfile.TemporaryDirectory(dir=above, prefix=PREFIX) as trial:
        Path(trial, path.relative_to(above)).mkdir(parents=True, exist_ok=True)


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Create the missing folders above `folder`; after a failure remove the empty ones."""
    missing = [above for above in folder.parents if not above.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for above in missing:
            with suppress(OSError):
                above.rmdir()
        raise


def _exchange(staging: Path, folder: Path) -> None:
    """Put the content of `staging` where that of `folder` is, or leave all as it was.

    The old manifest goes first and the new one comes last, so that a folder that was left
    half-way by a crash is no result.
    """
    retired = Path(tempfile.mkdtemp(dir=folder, prefix=f"{PREFIX}old-"))
    old = [path for path in folder.iterdir() if path not in (staging, retired)]
    moves = [(path, retired / path.name) for path in sorted(old, key=_is_no_manifest)]
    new = sorted(staging.iterdir(), key=_is_no_manifest, reverse=True)
    moves += [(path, folder / path.name) for path in new]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            with suppress(OSError):
                target.rename(source)
        with suppress(OSError):  # keeps what could not be put back
            retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _is_no_manifest(path: Path) -> bool:
    return path.name != MANIFEST


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
