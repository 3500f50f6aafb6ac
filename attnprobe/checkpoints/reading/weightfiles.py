"""Open a checkpoint file of any container and return what it holds, running nothing in it.

The container is told from the first bytes: torch's zip and legacy files, TorchScript,
safetensors, npz.
"""

import os
import pickle
import warnings
from dataclasses import dataclass, field, replace
from mmap import mmap
from pathlib import Path
from typing import Any

import torch

from attnprobe.checkpoints.reading import (
    archives,
    folders,
    legacy,
    metadata,
    npzfiles,
    pickledmodules,
    safeheaders,
    storages,
    zipdirectory,
)
from attnprobe.checkpoints.reading.checksums import Check
from attnprobe.checkpoints.reading.stackmachine import Placeholder
from attnprobe.errors import CheckpointError

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".npz", ".ckpt", ".tar")
_NAMELESS = ("checkpoint", "mp_rank_00_model_states", "model", "open_clip_model",
             "open_clip_pytorch_model", "pytorch_model")  # fmt: skip
_AGAIN = "download or copy the file again and compare its size and hash with the original"
_ACCESS = "check the path and its permissions"


@dataclass(frozen=True)
class Opened:
    """What a checkpoint file holds.

    Attributes:
        path: The file.
        container: torch, torch-legacy, torchscript, safetensors or npz.
        content: Whatever was saved: usually mappings of mappings of tensors.
        metadata: The `attnprobe` entry of a safetensors header, or empty.
        notes: Sentences about how it had to be read.
        config: The config.json beside the file, as it is, or empty.
        parts: The files of a sharded checkpoint, of which `path` is the index.
        checks: Entries of zips that hold their checksum; see `checksums.verified`.
    """

    path: Path
    container: str
    content: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Path, ...] = ()
    checks: tuple[Check, ...] = ()


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
        if path.exists():
            told = f"{path} is a device, a pipe or a socket, not a file"
        elif path.is_symlink():
            told = f"{path} is a link to {os.readlink(path)}, which is not there"  # noqa: PTH115
        raise CheckpointError(told, "check the path, or run `attnprobe list checkpoints`")
    if (path / "objective.safetensors").is_file():  # a training run
        return _locate(path / "checkpoint.safetensors")
    return folders.choose(path, SUFFIXES)


def label(path: Path) -> str:
    """Return a short name for a file: its stem, or its folder's where the stem says nothing.

    >>> label(Path("vit-b-300ep.pth.tar")), label(Path("mine/model.safetensors"))
    ('vit-b-300ep', 'mine')
    """
    stem = path.name.removesuffix(folders.INDEX)
    while (suffix := Path(stem).suffix) in SUFFIXES:
        stem = stem.removesuffix(suffix)
    folder = path.absolute().parent.name  # unresolved: hubs link files to where they keep them
    return folder if stem in _NAMELESS and folder else stem


def read(path: Path, *, trust: bool = False) -> Opened:
    """Read a checkpoint file; code in it runs only when `trust` is true.

    Raises:
        CheckpointError: The file is empty, damaged, no checkpoint, or claims impossible sizes.
    """
    try:
        _check_regular(path)
        data = storages.mapped(path)
        if data[:2] == b"PK":
            return _read_zip(path, data, trust=trust)
        if path.suffix == ".safetensors" or data[8:9] == b"{":
            tensors, header = safeheaders.read(data)
            return Opened(path, "safetensors", tensors, metadata.parse(path, header))
        _check_signs(path, data[:512])
        return _trusted(path, "torch-legacy") if trust else _read_legacy(path, data)
    except CheckpointError:
        raise
    except Exception as error:
        remedy = _ACCESS if isinstance(error, PermissionError) else _AGAIN
        raise CheckpointError(f"cannot read {path}: {_first_line(error)}", remedy) from error


def _check_regular(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not a regular file",  # opening a pipe would wait for its other end
            "copy the weights to a file and give that",
        )
    if not path.stat().st_size:
        raise CheckpointError(f"{path} is empty (0 bytes)", _AGAIN)


def _check_signs(path: Path, head: bytes) -> None:
    """Refuse what is no pickle, and say what it is."""
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive: torch's format before 2017, or something packed",
            "unpack it, or open it with torch.load and save its state_dict() with torch.save",
        )
    if head[:1] == b"\x80":
        return
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


def _read_zip(path: Path, data: mmap, *, trust: bool) -> Opened:
    try:
        entries = zipdirectory.entries(data)
    except Exception as error:
        raise CheckpointError(
            f"{path} is truncated or damaged: its zip directory cannot be read ({error})", _AGAIN
        ) from error
    if any(name.endswith(".npy") for name in entries):
        return Opened(path, "npz", npzfiles.read(path, entries, len(data)))
    place = archives.root(entries)
    if place is None:
        raise CheckpointError(
            f"{path} is a zip archive but holds neither torch's data.pkl nor .npy arrays",
            "unpack it and give the checkpoint inside",
        )
    script = archives.is_script(entries, place)
    container = "torchscript" if script else "torch"
    if trust and not script:
        return _trusted(path, container)
    content, foreign = archives.read(data, entries, place)
    opened = _inert(path, container, content, foreign=foreign)
    return replace(opened, checks=tuple((path, data, entry) for entry in entries.values()))


def _read_legacy(path: Path, data: mmap) -> Opened:
    content, foreign = legacy.read(data)
    return _inert(path, "torch-legacy", content, foreign=foreign)


def _inert(path: Path, container: str, content: Any, *, foreign: bool) -> Opened:
    """Take the tensors out of what was unpickled without running anything."""
    content, modules = pickledmodules.unfolded(content)
    if isinstance(content, Placeholder):
        raise CheckpointError(
            f"{path} is a pickled object ({content.name[:80]!a}), not a mapping of tensors; "
            "nothing in it was run",
            "save model.state_dict() instead, or pass --trust if you know who made the file",
        )
    notes: tuple[str, ...] = ()
    if container == "torchscript":
        notes = ("read from a TorchScript archive without running its code",)
    elif modules:
        notes = ("read from a pickled module without running its code",)
    elif foreign:
        notes = ("objects beside the tensors were skipped without running them",)
    return Opened(path, container, content, notes=notes)


def _trusted(path: Path, container: str) -> Opened:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(
            path, weights_only=False, map_location="cpu", mmap=container == "torch" or None
        )
    return Opened(
        path, container, _states(content), notes=("code in the file could run (--trust)",)
    )


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
    plain = isinstance(error, ValueError | pickle.UnpicklingError)
    kind = "" if plain and text else type(error).__name__ + (": " if text else "")
    return f"{kind}{text[0][:300] if text else ''}"
