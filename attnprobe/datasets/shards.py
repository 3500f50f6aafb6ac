"""Tar archives and WebDataset shards, indexed once by their headers."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from attnprobe.datasets.pictures import Pictures, labelled
from attnprobe.datasets.stores import Members, packed
from attnprobe.errors import ImagesError
from attnprobe.images.sources import is_image_name, is_plain_member

MOST_SHARDS = 100_000
LARGEST_LABEL = 2**20  # bytes of a .cls or .json member
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class _Sample:
    """What one archive holds under one key: images by name, and where its label is."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    label: int | None = None


def is_pattern(source: str) -> bool:
    """Whether a source names several archives: by a range in braces or by commas."""
    return bool(_RANGE.search(source)) or ("," in source and ".tar" in source)


def expand(pattern: str) -> list[Path]:
    """Return the archives that a pattern names.

    >>> [path.name for path in expand("a-{08..10}.tar,b.tar")]
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b.tar']

    Raises:
        ImagesError: It names far too many, or one twice.
    """
    found: list[str] = []
    for part in filter(None, map(str.strip, pattern.split(","))):
        ends = [(first, last) for first, last in _RANGE.findall(part)]
        ranges = [range(int(first), int(last) + 1) for first, last in ends]
        if len(found) + np.prod([len(one) for one in ranges], dtype=float) > MOST_SHARDS:
            raise ImagesError(f"{pattern} names more than {MOST_SHARDS} archives", "name fewer")
        widths = [len(first) for first, _ in ends]
        for numbers in product(*ranges):
            filled = iter(f"{n:0{width}d}" for n, width in zip(numbers, widths, strict=True))
            found.append(_RANGE.sub(lambda _, filled=filled: next(filled), part))
    if len(set(found)) < len(found):
        raise ImagesError(f"{pattern} names an archive twice", "name each archive once")
    return [Path(name) for name in found]


def open_shards(label: str, shards: list[Path]) -> Pictures:
    """Index archives; members of one key (the name up to its first dot) belong together.

    An image's label is the whole number in its `.cls` member, or `label` in its `.json`.

    Args:
        label: What the user gave as source.
        shards: The archives, in order.

    Raises:
        ImagesError: One cannot be read, or labels are missing or unclear.
    """
    names: list[bytes] = []
    places: list[tuple[int, int, int]] = []
    labels: list[int | None] = []
    for number, shard in enumerate(shards):
        for name, start, size, own in _images(shard):
            names.append(os.fsencode(name))
            places.append((number, start, size))
            labels.append(own)
    where = np.array(places, dtype=np.int64).reshape(-1, 3).T
    images = Members(
        tuple(shards), packed(names), where[0].astype(np.int32), where[1].copy(), where[2].copy()
    )
    if all(own is None for own in labels):
        return labelled(label, images)
    if None in labels:
        bare = images.name(labels.index(None))
        raise ImagesError(
            f"{bare} has no label (.cls or .json), unlike other images of {label}",
            "label every image or none",
        )
    return labelled(label, images, labels)


def _images(shard: Path) -> Iterator[tuple[str, int, int, int | None]]:
    """Yield name, start, size and label of a shard's images, by name."""
    samples = _samples(shard)
    for key in sorted(samples):
        sample = samples[key]
        if len(sample.images) > 1 and sample.label is not None:
            raise ImagesError(
                f"{shard} has one label but {len(sample.images)} images for {key}: "
                f"{', '.join(sorted(sample.images)[:3])}",
                "keep one image for each label",
            )
        for name in sorted(sample.images):
            yield name, *sample.images[name], sample.label


def _samples(shard: Path) -> dict[str, _Sample]:
    if not os.path.isfile(shard):  # noqa: PTH113 - unlike pathlib's it never raises
        raise ImagesError(f"the archive {shard} does not exist", "check path and range")
    samples: dict[str, _Sample] = {}
    try:
        with shard.open("rb") as file, tarfile.open(shard, "r:") as archive:
            for member in archive:
                if is_plain_member(member):
                    _add(samples, member, file)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ImagesError(
            f"{shard} is not a complete, uncompressed tar archive: {error}",
            "fetch or write this archive again",
        ) from error
    return samples


def _add(samples: dict[str, _Sample], member: tarfile.TarInfo, file: IO[bytes]) -> None:
    path = PurePosixPath(member.name)
    if path.name.startswith("."):
        return
    stem, _, suffix = path.name.partition(".")
    sample = samples.setdefault(str(path.parent / stem), _Sample())
    if is_image_name(path.name):
        sample.images[str(path)] = (member.offset_data, member.size)
    elif suffix in {"cls", "json"}:
        own = _label(member, suffix, file)
        sample.label = sample.label if own is None else own


def _label(member: tarfile.TarInfo, suffix: str, file: IO[bytes]) -> int | None:
    """Return a label, or None of a .json without one.

    Raises:
        ValueError: It is no whole number.
    """
    if member.size > LARGEST_LABEL:
        raise ValueError(f"{member.name} has {member.size} bytes, too many for a label")
    file.seek(member.offset_data)
    data = file.read(member.size)
    try:
        held = int(data) if suffix == "cls" else json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{member.name} holds no label") from error
    if suffix == "json":
        held = held.get("label") if isinstance(held, dict) else None
    if held is None or (isinstance(held, int) and not isinstance(held, bool)):
        return held
    raise ValueError(f"the label in {member.name} is no whole number")
