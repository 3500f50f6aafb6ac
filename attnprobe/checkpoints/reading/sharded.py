"""Read a checkpoint from one file, or from several with an index, with what lies beside it.

The index of a sharded model says which file each tensor lies in. It is a stranger's: it may
name only plain files of its own folder, and every tensor must lie where it says, once.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from attnprobe.checkpoints.reading import configs, folders, weightfiles
from attnprobe.checkpoints.reading.checksums import Check
from attnprobe.checkpoints.reading.weightfiles import Opened
from attnprobe.errors import CheckpointError

LARGEST_INDEX = 32 * 2**20
_SHOWN = 5
_DISTRUST = "do not trust this folder; get it from its authors"
_AGAIN = "download the whole folder again"


def read(path: Path, *, trust: bool = False) -> Opened:
    """Read a checkpoint file or the index of a sharded one.

    Raises:
        CheckpointError: It cannot be read, or a shard is missing, foreign or contradicts it.
    """
    sharded = path.name.endswith(folders.INDEX)
    opened = _read_shards(path, trust) if sharded else weightfiles.read(path, trust=trust)
    stated = configs.beside(path) if folders.alone(path, weightfiles.SUFFIXES) else configs.NOTHING
    return replace(
        opened,
        metadata={**stated.facts, **opened.metadata},
        notes=(*opened.notes, *folders.left_out(path), *stated.notes),
        config=stated.config,
    )


def size(opened: Opened) -> int:
    """Return the bytes of a file, or of all its shards."""
    return sum(part.stat().st_size for part in opened.parts or (opened.path,))


def _read_shards(index: Path, trust: bool) -> Opened:
    places = _places(index)
    names = sorted(set(places.values()))
    _check_present(index, names)
    content: dict[str, Any] = {}
    notes: dict[str, None] = {}
    metadata: dict[str, Any] = {}
    checks: list[Check] = []
    for name in names:
        shard = weightfiles.read(index.parent / name, trust=trust)
        _check_shard(index, name, shard.content, places)
        content |= shard.content
        metadata |= shard.metadata
        notes |= dict.fromkeys(shard.notes)
        checks += shard.checks
    parts = tuple(index.parent / name for name in names)
    container = "safetensors" if names[0].endswith(".safetensors") else "torch"
    opened = Opened(index, container, content, metadata, tuple(notes), parts=parts)
    return replace(opened, checks=tuple(checks))


def _places(index: Path) -> dict[str, str]:
    """Return the shard of every tensor, by plain file names only."""
    content = configs.json_of(index, LARGEST_INDEX)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map of tensors to files", _AGAIN)
    odd = [name for name in places.values() if not _plain(name)]
    if odd:
        raise CheckpointError(
            f"{index} names {str(odd[0])[:80]!r} as a shard, expected a plain file name that ends "
            "in .safetensors or .bin",
            _DISTRUST,
        )
    return places


def _plain(name: Any) -> bool:
    return (
        isinstance(name, str)
        and name.isprintable()
        and not set(name) & set("/\\:")
        and name.endswith((".safetensors", ".bin"))
        and not name.startswith(".")
        and len(name) <= 200
    )


def _check_present(index: Path, names: list[str]) -> None:
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of the {len(names)} shards that {index.name} names are missing: "
            f"{_listed(missing)}",
            f"download them into {index.parent}",
        )


def _check_shard(index: Path, name: str, content: Any, places: dict[str, str]) -> None:
    """Refuse a shard whose tensors are not just those that the index places in it."""
    plain = isinstance(content, dict) and all(isinstance(key, str) for key in content)
    if not plain:
        raise CheckpointError(f"{name} is no mapping of names to tensors", _AGAIN)
    placed = {tensor for tensor, place in places.items() if place == name}
    absent, extra = sorted(placed - set(content)), sorted(set(content) - placed)
    if absent or extra:
        what = f"lacks {_listed(absent)}" if absent else f"also holds {_listed(extra)}"
        raise CheckpointError(f"{name} {what}, against what {index.name} says", _AGAIN)


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    shown = ", ".join(ascii(name[:120]).strip("'") for name in names[:_SHOWN])
    return shown + (f", ... and {more} more" if more > 0 else "")
