"""Open a checkpoint file of any container and return what it holds, running nothing in it.

The container is told from the first bytes: torch's zip and legacy pickles, safetensors, npz.
"""

import hashlib
import math
import pickle
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from attnprobe.checkpoints import metadata, unpickle
from attnprobe.errors import CheckpointError

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".npz", ".ckpt", ".tar")
_AGAIN = "download or copy the file again and compare its size and hash with the original"
_ACCESS = "check the path and its permissions"
_DISTRUST = "do not trust this file; get it from its authors"


@dataclass(frozen=True)
class Opened:
    """What a checkpoint file holds.

    Attributes:
        path: The file.
        container: torch, torch-legacy, safetensors or npz.
        content: Whatever was saved: usually mappings of mappings of tensors.
        metadata: The `attnprobe` entry of a safetensors header, or empty.
        notes: Sentences about how it had to be read.
        config: The config.json beside the file, as it is, or empty.
    """

    path: Path
    container: str
    content: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


def locate(source: str | Path) -> Path:
    """Return the one checkpoint file that a path means.

    Raises:
        CheckpointError: Nothing is there, or a folder without exactly one checkpoint file.
    """
    try:
        return _locate(Path(source).expanduser())
    except OSError as error:
        raise CheckpointError(f"cannot open {source}: {error.strerror}", _ACCESS) from error


def _locate(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        told = f"no checkpoint at {path}: neither a file, a folder, a catalogue name nor timm:NAME"
        raise CheckpointError(told, "check the path, or run `attnprobe list checkpoints`")
    if (path / "objective.safetensors").is_file():  # a training run
        return _locate(path / "checkpoint.safetensors")
    files = sorted(item for item in path.iterdir() if item.suffix in SUFFIXES and item.is_file())
    if len(files) != 1:
        names = ", ".join(item.name for item in files[:5]) or "none"
        raise CheckpointError(
            f"{path} is a folder with {len(files)} checkpoint files ({names}), expected one",
            f"give the file itself ({' '.join(SUFFIXES)})",
        )
    return files[0]


def label(path: Path) -> str:
    """Return a short name for a file: its stem, or its folder's where the stem says nothing.

    >>> label(Path("vit-b-300ep.pth.tar")), label(Path("mine/model.safetensors"))
    ('vit-b-300ep', 'mine')
    """
    stem = path.name
    while (suffix := Path(stem).suffix) in SUFFIXES:
        stem = stem.removesuffix(suffix)
    folder = path.resolve().parent.name
    return folder if stem in ("model", "pytorch_model", "checkpoint") and folder else stem


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path, *, trust: bool = False) -> Opened:
    """Read a checkpoint file; code in it runs only when `trust` is true.

    Raises:
        CheckpointError: The file is empty, damaged, no checkpoint, or claims impossible sizes.
    """
    try:
        container = _container(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if container == "safetensors":
                return _read_safetensors(path)
            if container == "npz":
                return _read_npz(path)
            return _read_torch(path, container, trust=trust)
    except CheckpointError:
        raise
    except Exception as error:
        remedy = _ACCESS if isinstance(error, PermissionError) else _AGAIN
        raise CheckpointError(f"cannot read {path}: {_first_line(error)}", remedy) from error


def _container(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes)", _AGAIN)
    if head[:2] == b"PK":
        return _zip_container(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        _check_safetensors_header(path, head, size)
        return "safetensors"
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        return "torch-legacy"
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights", "fetch the file with `git lfs pull`"
        )
    raise CheckpointError(f"{path} is not a checkpoint: it {_looks_like(head)}", _AGAIN)


def _looks_like(head: bytes) -> str:
    if head.lstrip()[:1] == b"<":
        return "is a web page (HTML or XML), probably an error page saved under its name"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"is text that starts with {head[:40].decode()!r}"
    return f"starts with the bytes {head[:8].hex(' ')}, which no supported container does"


def _zip_container(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged: its zip directory cannot be read ({error})", _AGAIN
        ) from error
    if any(entry.filename.endswith(".npy") for entry in entries):
        return "npz"
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise CheckpointError(
            f"{path} is a zip archive but holds neither torch's data.pkl nor .npy arrays",
            "unpack it and give the checkpoint inside",
        )
    claimed, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if claimed > size or any(entry.compress_type for entry in entries):
        raise CheckpointError(
            f"{path} claims {claimed} bytes of tensors in a file of {size} bytes, or compresses "
            "them, which torch never does",
            _DISTRUST,
        )
    return "torch"


def _check_safetensors_header(path: Path, head: bytes, size: int) -> None:
    length = int.from_bytes(head[:8], "little")
    if length > size - 8:
        raise CheckpointError(
            f"{path} is truncated or not safetensors: its header claims {length} bytes, "
            f"the file has {size}",
            _AGAIN,
        )


def _read_safetensors(path: Path) -> Opened:
    try:
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged safetensors: {error}", _AGAIN) from error
    return Opened(path, "safetensors", content, metadata.parse(path, header))


def _read_npz(path: Path) -> Opened:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                _check_npy(path, archive, entry)
    with np.load(path, allow_pickle=False) as arrays:
        content = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    return Opened(path, "npz", content)


def _check_npy(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array whose header claims more than its zip entry can hold."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
        shape, _, dtype = read_header(file)
    claimed = math.prod(shape) * dtype.itemsize
    # deflate cannot shrink a thousandfold; an honest header never exceeds its entry
    if claimed > entry.file_size or entry.file_size > 1100 * (entry.compress_size + 100):
        raise CheckpointError(
            f"{path}: {entry.filename} claims shape {shape} ({claimed} bytes) in an entry of "
            f"{entry.compress_size} bytes",
            _DISTRUST,
        )


def _read_torch(path: Path, container: str, *, trust: bool) -> Opened:
    options: dict[str, Any] = {"map_location": "cpu", "mmap": container == "torch" or None}
    if trust:
        content = torch.load(path, weights_only=False, **options)
        note = "code in the file could run (--trust)"
        return Opened(path, container, _states(content), notes=(note,))
    try:
        return Opened(path, container, torch.load(path, weights_only=True, **options))
    except pickle.UnpicklingError:
        content = torch.load(path, weights_only=False, pickle_module=unpickle, **options)
    if isinstance(content, unpickle.Placeholder):
        raise CheckpointError(
            f"{path} is a pickled object, not a mapping of tensors; nothing in it was run",
            "save model.state_dict() instead, or pass --trust if you know who made the file",
        )
    note = "objects beside the tensors were skipped without running them"
    return Opened(path, container, content, notes=(note,))


def _states(content: Any) -> Any:
    """Replace whole modules by their state, at the top or one level down."""
    if isinstance(content, torch.nn.Module):
        return content.state_dict()
    if not isinstance(content, dict):
        return content
    return {
        key: value.state_dict() if isinstance(value, torch.nn.Module) else value
        for key, value in content.items()
    }


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
