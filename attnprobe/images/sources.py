"""Find image files: folders, lists, tar archives and npz bundles, all as byte ranges."""

import os
import stat
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from attnprobe import npz, shipped
from attnprobe.errors import ImagesError
from attnprobe.images.decoding import SUFFIXES

LARGEST_FILE = 256 * 2**20  # bytes; no photograph is larger


class Entry(NamedTuple):
    """One image file: `size` bytes from `start` of `path`, or of the blob without a path."""

    id: str
    path: Path | None
    start: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Source:
    """The image files of one place, in their order.

    Attributes:
        label: What the user gave, for messages.
        entries: One entry an image file.
        blob: The bytes behind entries without a path.
    """

    label: str
    entries: tuple[Entry, ...]
    blob: np.ndarray | None = None

    def read(self, index: int) -> bytes:
        """Bytes of one image file.

        Raises:
            ImagesError: It cannot be read; the cause is the reason in a few words.
        """
        entry = self.entries[index]
        if entry.path is None and self.blob is not None:
            return self.blob[entry.start : entry.start + (entry.size or 0)].tobytes()
        return read_file(Path(entry.path or ""), entry.start, entry.size)


def read_file(path: Path, start: int = 0, size: int | None = None) -> bytes:
    """Read one image file, or `size` bytes from `start` of an archive.

    Raises:
        ImagesError: It cannot be read; the cause is the reason in a few words.
    """
    try:
        return _read(path, start, size)
    except (OSError, ValueError) as error:  # ValueError: a null byte in a name
        reason = getattr(error, "strerror", None) or error
        raise ImagesError(f"cannot be opened ({reason})") from error


def find(source: str | Path | Sequence[str | Path]) -> Source:
    """List the image files of a folder, file, list, `.txt`, `.tar`, `.npz` or "bundled".

    Raises:
        ImagesError: The place does not exist, cannot be read, or holds no image files.
    """
    label = str(source) if isinstance(source, str | Path) else f"the list of {len(source)} paths"
    if not isinstance(source, str | Path):
        found = Source(label, _from_list(((str(path), Path(path)) for path in source), label))
    else:
        path = shipped.path("images") if source == "bundled" else Path(source)
        found = _from_path(path, label)
    if not found.entries:
        raise ImagesError(
            f"{label} holds no image files (*{', *'.join(sorted(SUFFIXES))})",
            "give a folder, file, .txt list, .tar or .npz of images, or `bundled`",
        )
    return found


def _from_path(path: Path, label: str) -> Source:
    if os.path.isdir(path):  # noqa: PTH112 - unlike pathlib's it never raises
        return Source(label, _from_folder(path))
    if not os.path.exists(path):  # noqa: PTH110
        raise ImagesError(
            f"{path} does not exist", "check the path, or use the sample images: `bundled`"
        )
    match path.suffix.lower():
        case ".txt":
            return Source(label, _from_list(_lines(path), str(path)))
        case ".tar":
            return Source(label, _from_tar(path))
        case ".npz":
            return _from_npz(path, label)
    return Source(label, (Entry(text(path.name), path),))


def _from_folder(root: Path) -> tuple[Entry, ...]:
    """Image files below `root` by relative path; linked folders once, hidden names never."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        where = Path(folder)
        key = where.stat().st_dev, where.stat().st_ino
        if key in seen:  # a link back into the tree, or a second link to the same folder
            folders.clear()
            continue
        seen.add(key)
        found += [where / name for name in files if is_image_name(name)]
    named = sorted((path.relative_to(root).as_posix(), path) for path in found)
    return tuple(Entry(text(name), path) for name, path in named)


def _from_list(named: Iterable[tuple[str, Path]], label: str) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    for name, path in named:
        if name in entries:
            raise ImagesError(f"{label} names {name} twice", "list every image once")
        entries[name] = Entry(text(name), path)
    return tuple(entries.values())


def _lines(path: Path) -> list[tuple[str, Path]]:
    """Paths in a list file, relative to it; blank lines and # comments do not count."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ImagesError(
            f"cannot read the list {path}: {error}", "write one path a line, in UTF-8"
        ) from error
    return [(line, path.parent / line) for line in lines if line and not line.startswith("#")]


def _from_tar(path: Path) -> tuple[Entry, ...]:
    """Regular members with image names, by name; the last of equal names, as unpacking does."""
    members: dict[str, Entry] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if is_plain_member(member) and is_image_name(name.name):
                    entry = Entry(text(str(name)), path, member.offset_data, member.size)
                    members[str(name)] = entry
    except (tarfile.TarError, OSError) as error:
        raise ImagesError(
            f"{path} is not a complete, uncompressed tar archive: {error}",
            "write it again with `tar -cf` or give the unpacked folder",
        ) from error
    return tuple(members[name] for name in sorted(members))


def _from_npz(path: Path, label: str) -> Source:
    held = bundle(path)
    name, edges = text(path.name), held["offset"]
    spans = zip(edges[:-1].tolist(), np.diff(edges).tolist(), strict=True)
    entries = (Entry(f"{name}#{i:05d}", None, a, n) for i, (a, n) in enumerate(spans))
    return Source(label, tuple(entries), held["jpeg"])


def bundle(path: Path) -> dict[str, np.ndarray]:
    """Read an npz: image files end to end in `jpeg`, their edges in `offset` (int64).

    Raises:
        ImagesError: It cannot be read, or the edges do not fit the files.
    """
    try:
        held = npz.read(path)
        blob, edges = held["jpeg"], held["offset"]
    except npz.UNREADABLE as error:
        raise ImagesError(
            f"{path} is not an npz with arrays `jpeg` and `offset`: {error}",
            "store all JPEG files end to end in `jpeg` (uint8) and their edges in `offset`",
        ) from error
    edges = edges.astype(np.int64) if edges.dtype.kind in "iu" else np.array([0, -1])
    valid = blob.dtype == np.uint8 and blob.ndim == 1 and edges.ndim == 1 and edges.size
    if not (valid and edges[0] >= 0 and (np.diff(edges) >= 0).all() and edges[-1] <= blob.size):
        raise ImagesError(
            f"{path}: `offset` must rise from 0 to the length of `jpeg` (uint8, one axis)",
            "store n + 1 edges for n files",
        )
    return {**held, "offset": edges}


def _read(path: Path, start: int, size: int | None) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImagesError("not a regular file")
    size = status.st_size if size is None else size
    if size > LARGEST_FILE:
        raise ImagesError(f"a file of {size >> 20} MiB is no image")
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _refuse_folder(error: OSError) -> None:
    raise ImagesError(
        f"cannot read the folder {error.filename}: {error.strerror}", "make it readable or move it"
    ) from error


def is_plain_member(member: tarfile.TarInfo) -> bool:
    """Whether an archive's member is a file of its own inside it: no link, hole or escape."""
    name = PurePosixPath(member.name)
    inside = not name.is_absolute() and ".." not in name.parts
    return inside and member.isreg() and not member.issparse()


def is_image_name(name: str) -> bool:
    """Whether a file of that name is taken for an image: by its suffix, unless it is hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def text(name: str) -> str:
    """Return a file name as valid text, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
