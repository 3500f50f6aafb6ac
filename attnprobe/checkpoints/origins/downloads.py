"""Download a file once: resumed where it broke off, checked, and put in place only when whole."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnprobe.checkpoints.origins import cache, network, transfers
from attnprobe.checkpoints.origins.cache import Receipt
from attnprobe.checkpoints.reading import hashing
from attnprobe.errors import CheckpointError, OutputError

CHUNK = 2**20
ATTEMPTS = 6  # broken connections in a row without a byte
PAUSE = 1.0  # seconds before the second attempt; doubled for each one more
ROOM = 64 * 2**20  # bytes that have to stay free on the disk
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """A file to download.

    Attributes:
        name: What it is called in messages.
        address: Where it comes from.
        target: Where it goes.
        sha256: Its hash, or nothing where it is not known.
        size: Its bytes, or 0.
    """

    name: str
    address: str
    target: Path
    sha256: str = ""
    size: int = 0


def download(wanted: Wanted, progress: Progress = lambda done, total: None) -> Receipt:
    """Return the receipt of a file that is in place, after downloading it if need be.

    Args:
        wanted: The file.
        progress: Called with bytes done and in all (0 where unknown).

    Raises:
        CheckpointError: It cannot be had, or is not what it should be.
        OutputError: It cannot be written.
    """
    found = present(wanted)
    if found is not None:
        return found
    _check_address(wanted)
    import filelock

    try:
        wanted.target.parent.mkdir(parents=True, exist_ok=True)
        # two processes: the second waits, and finds the file
        with filelock.FileLock(wanted.target.with_name(f"{wanted.target.name}.lock")):
            return present(wanted) or _fetch(wanted, progress)
    except OSError as error:
        raise OutputError(
            f"cannot write {wanted.target}: {error.strerror or error}",
            f"name another folder with {cache.VARIABLE}",
        ) from error


def present(wanted: Wanted) -> Receipt | None:
    """Return the receipt of a file that is in place already, downloaded or put there by hand.

    Raises:
        CheckpointError: A file put there by hand is another one.
    """
    if not wanted.target.is_file():
        return None
    found = cache.receipt(wanted.target)
    if found is None:  # put there by hand
        found = Receipt("", wanted.target.stat().st_size, hashing.digest(wanted.target))
    elif found.address not in ("", wanted.address):
        return None  # the record names another file since
    if wanted.sha256 not in ("", found.sha256):
        raise CheckpointError(
            f"{wanted.target} is not {wanted.name}: its sha256 is {found.sha256}, expected "
            f"{wanted.sha256}",
            "remove that file and get it again, or correct the record",
        )
    return found


def _check_address(wanted: Wanted) -> None:
    if not transfers.allowed(wanted.address):
        raise CheckpointError(f"{wanted.address} is not https", "give an https address or a path")
    if not network.reachable(wanted.address):
        raise CheckpointError(
            f"{wanted.name} cannot be downloaded: {network.reason(wanted.address)}",
            f"on a connected machine download {wanted.address} and place it at {wanted.target}",
        )


def _fetch(wanted: Wanted, progress: Progress) -> Receipt:
    part = wanted.target.with_name(f"{wanted.target.name}.part")
    _transfer(wanted, part, progress)
    digest = hashing.digest(part)
    if wanted.sha256 not in ("", digest):
        _discard(part)
        raise CheckpointError(
            f"{wanted.address} is not {wanted.name}: its sha256 is {digest}, expected "
            f"{wanted.sha256}; the download was removed",
            "its authors may have replaced it: ask them, or correct the record",
        )
    found = Receipt(
        wanted.address, part.stat().st_size, digest, datetime.now(UTC).isoformat(timespec="seconds")
    )
    part.replace(wanted.target)
    cache.record(wanted.target, found)
    _note(part).unlink(missing_ok=True)
    return found


def _transfer(wanted: Wanted, part: Path, progress: Progress) -> None:
    """Go on until the file is whole, however often the connection breaks."""
    failures = 0
    while True:
        before = _length(part)
        try:
            _once(wanted, part, progress)
            return
        except transfers.BrokenTransferError as error:
            failures = 1 if _length(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise CheckpointError(
                    f"the download of {wanted.address} broke off at {_length(part)} bytes: {error}",
                    "run the same command again: it goes on from there",
                ) from error
        time.sleep(min(PAUSE * 2 ** (failures - 1), 30))


def _once(wanted: Wanted, part: Path, progress: Progress) -> None:
    """Write one connection's share of the file."""
    start, version, total = _begun(wanted, part)
    if start and start == total:
        return  # stopped between the last byte and the check
    answer = transfers.ask(wanted.address, start, version)
    with answer.stream:
        _check_size(wanted, answer.total)
        _check_room(part, answer.total - answer.start)
        note = {"address": wanted.address, "version": answer.version, "total": answer.total}
        _note(part).write_text(json.dumps(note), encoding="utf-8")
        with part.open("r+b" if answer.start else "wb") as file:
            file.seek(answer.start)
            file.truncate()
            try:
                _copy(wanted, answer, file, progress)
            except CheckpointError:
                _discard(part)
                raise


def _copy(wanted: Wanted, answer: transfers.Answer, file: Any, progress: Progress) -> None:
    done = answer.start
    progress(done, answer.total)
    while chunk := transfers.read(answer, CHUNK):
        if done == 0 and transfers.is_page(chunk[:256]):
            raise transfers.page(wanted.address)
        file.write(chunk)
        done += len(chunk)
        progress(done, answer.total)
    if done < answer.total:
        raise transfers.BrokenTransferError(
            f"the server closed after {done} of {answer.total} bytes"
        )
    if done == 0:
        raise CheckpointError(
            f"{wanted.address} is empty (0 bytes)", "ask its authors, or give a file by its path"
        )


def _begun(wanted: Wanted, part: Path) -> tuple[int, str, int]:
    """Return how much of this very file is there from an earlier try, its version and size."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        if note["address"] == wanted.address and note["version"]:
            return _length(part), str(note["version"]), int(note["total"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent or damaged: begin again
    return 0, "", 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _check_size(wanted: Wanted, total: int) -> None:
    if wanted.size and total and wanted.size != total:
        raise CheckpointError(
            f"{wanted.address} has {total} bytes, and {wanted.name} should have {wanted.size}",
            "its authors may have replaced it: ask them, or correct the record",
        )


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed + ROOM > free:
        raise OutputError(
            f"{part.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB more are "
            "needed for the download",
            f"make room, or name another folder with {cache.VARIABLE}",
        )


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
