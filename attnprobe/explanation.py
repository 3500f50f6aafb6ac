"""Explain a checkpoint that cannot be loaded: what it holds, and what it is nearest to.

Every known format converts the file's names, on tensors without storage; what comes out is
compared with the names that the format's timm family has. Names that differ are paired where
their shapes agree, which is most of a new format's record.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnprobe.checkpoints.building import templates
from attnprobe.checkpoints.origins import sources
from attnprobe.checkpoints.reading import sharded
from attnprobe.errors import AttnprobeError, CheckpointError
from attnprobe.formats import Format, Weights, convert, formats
from attnprobe.formats.containers import named_tensors

Shape = tuple[int, ...]
_MOST_PREFIXES = 6
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)")


@dataclass(frozen=True)
class Nearness:
    """How far a file is from one format.

    Attributes:
        name: The format.
        family: The timm family that holds it.
        prefix: What was taken off every name.
        fitting: Name patterns that are the family's, with their shape.
        missing: Patterns that the family needs and the file lacks.
        extra: Patterns of the file, under the format's names, that the family lacks.
        pairs: Extra pattern -> missing pattern whose shape it has.
    """

    name: str
    family: str
    prefix: str
    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    pairs: dict[str, str] = field(default_factory=dict)

    @property
    def distance(self) -> float:
        """Share of names on either side that the other lacks; 0 for the format itself."""
        apart = len(self.missing) + len(self.extra)
        return apart / max(1, apart + len(self.fitting))


@dataclass(frozen=True)
class Explanation:
    """What a checkpoint file holds.

    Attributes:
        path: The file.
        container: torch, torch-legacy, safetensors, npz, ...
        beside: Keys that lie beside the tensors.
        groups: (prefix, tensors, values) of the first words of names, largest first.
        patterns: (name pattern, shape, how many) of the tensors, largest first.
        nearest: The nearest formats, nearest first.
    """

    path: Path
    container: str
    beside: tuple[str, ...]
    groups: tuple[tuple[str, int, int], ...]
    patterns: tuple[tuple[str, Shape, int], ...]
    nearest: tuple[Nearness, ...]


def explain(source: str | Path, *, trust: bool = False, part: str | None = None) -> Explanation:
    """Say what a file holds and which formats are near.

    Raises:
        CheckpointError: The file cannot be read at all, or holds no tensors.
    """
    path = sources.resolve(source).path
    if path is None:
        raise CheckpointError(f"{source} is no file", "timm builds it itself")
    opened = sharded.read(path, trust=trust)
    flat, beside, _ = named_tensors(opened.content, part)
    shapes = {name: tuple(tensor.shape) for name, tensor in flat.items()}
    weights = Weights(_hollow(shapes), "", {}, frozenset(flat), beside, (), opened.config)
    return Explanation(
        opened.path,
        opened.container,
        tuple(sorted(beside)),
        _groups(shapes),
        _patterns(shapes),
        tuple(sorted(_nearest(weights), key=_far)[:3]),
    )


def record(nearness: Nearness) -> str:
    """Return a plug-in file for a format like the file's, from the names that differ."""
    rules = [
        f'        (r"^{_regex(theirs)}$", r"{_replacement(ours)}"),'
        for theirs, ours in nearness.pairs.items()
    ]
    stems = {ours: theirs for theirs, ours in nearness.pairs.items()}
    sign = stems.get("blocks.*.attn.qkv.weight") or max(nearness.pairs, key=len, default="")
    anchor = stems.get("patch_embed.proj.weight", "")
    return "\n".join(
        [
            "import attnprobe",
            "from attnprobe.formats.signs import has",
            "",
            "FORMAT = attnprobe.Format(",
            '    name="mine",',
            '    description="what it is and where it comes from",',
            f'    family="{nearness.family}",',
            f'    detect=has(r"^{_regex(sign).replace("(", "").replace(")", "")}$"),',
            *([f'    anchor=r"{_regex(anchor)}$",'] if anchor else []),
            "    rename=(  # release -> timm; check each pair",
            *rules,
            "    ),",
            ")",
        ]
    )


def _hollow(shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _pattern(name: str) -> str:
    return _NUMBER.sub("*", name)


def _regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", r"(\d+)")


def _replacement(pattern: str) -> str:
    count = iter(range(1, 10))
    return re.sub(r"\*", lambda _: rf"\{next(count)}", pattern)


def _groups(shapes: Mapping[str, Shape]) -> tuple[tuple[str, int, int], ...]:
    found: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        group = found.setdefault(_pattern(name).split("*")[0].rpartition(".")[0] or name, [0, 0])
        group[0] += 1
        group[1] += torch.Size(shape).numel()
    rows = ((prefix, count, values) for prefix, (count, values) in found.items())
    return tuple(sorted(rows, key=lambda row: -row[2]))


def _patterns(shapes: Mapping[str, Shape]) -> tuple[tuple[str, Shape, int], ...]:
    counted = Counter((_pattern(name), shape) for name, shape in shapes.items())
    rows = ((pattern, shape, count) for (pattern, shape), count in counted.items())
    return tuple(sorted(rows, key=lambda row: -row[2] * torch.Size(row[1]).numel()))


def _nearest(weights: Weights) -> Iterator[Nearness]:
    prefixes = _prefixes(weights.tensors)
    for layout in formats():
        if layout.family in templates.FAMILIES:
            tried = [near for prefix in prefixes if (near := _near(layout, weights, prefix))]
            if tried:
                yield min(tried, key=_far)


def _far(one: Nearness) -> tuple[float, int, bool]:
    return one.distance, -len(one.pairs), one.name != "timm"


def _prefixes(tensors: Mapping[str, Any]) -> list[str]:
    """Words that most names begin with, up to the first number."""
    votes: dict[str, int] = {"": 0}
    for name in tensors:
        head = _pattern(name).split("*")[0]
        words = head.split(".")[:-1]
        for end in range(1, len(words) + 1):
            prefix = ".".join(words[:end]) + "."
            votes[prefix] = votes.get(prefix, 0) + 1
    often = sorted(votes, key=lambda prefix: -votes[prefix])[:_MOST_PREFIXES]
    return list(dict.fromkeys([*often, ""]))


def _near(layout: Format, weights: Weights, prefix: str) -> Nearness | None:
    inner = {n.removeprefix(prefix): t for n, t in weights.tensors.items() if n.startswith(prefix)}
    hollow = Weights(inner, prefix, {}, weights.names, weights.beside, (), weights.config)
    try:
        found = convert(hollow, layout).tensors
    except (AttnprobeError, RuntimeError, ValueError, KeyError, IndexError, TypeError):
        return None  # a conversion that is not meant for these names
    theirs = {_pattern(name): tuple(tensor.shape) for name, tensor in found.items()}
    required, allowed = _template(layout.family)
    fitting = [name for name in theirs if name in allowed]
    missing = [name for name in required if name not in theirs]
    extra = [name for name in theirs if name not in allowed]
    pairs = _pairs(extra, missing, theirs, allowed)
    return Nearness(
        layout.name, layout.family, prefix, tuple(fitting), tuple(missing), tuple(extra), pairs
    )


@cache
def _template(family: str) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Return the name patterns that a family needs, and all that it can have."""
    needed, allowed = templates.names(family)
    return (
        {_pattern(name): shape for name, shape in needed.items()},
        {_pattern(name): shape for name, shape in allowed.items()},
    )


def _pairs(
    extra: list[str], missing: list[str], theirs: Mapping[str, Shape], ours: Mapping[str, Shape]
) -> dict[str, str]:
    """Pair names whose shapes agree in units of the width, most alike first."""
    scale, unit = _width(theirs), _width(ours)
    candidates = [
        (difflib.SequenceMatcher(None, _end(a), _end(b)).ratio(), a, b)
        for a in extra
        for b in missing
        if a.count("*") == b.count("*")
        and _in_widths(theirs[a], scale) == _in_widths(ours[b], unit)
    ]
    found: dict[str, str] = {}
    for _, a, b in sorted(candidates, reverse=True):
        if a not in found and b not in found.values():
            found[a] = b
    return dict(sorted(found.items()))


def _end(pattern: str) -> str:
    return pattern.rpartition("*.")[2]


def _width(shapes: Mapping[str, Shape]) -> int:
    """Return the width: the most frequent length of a vector."""
    sizes = [shape[0] for shape in shapes.values() if len(shape) == 1]
    return max(set(sizes), key=sizes.count, default=1)


def _in_widths(shape: Shape, width: int) -> tuple[Any, ...]:
    return tuple(size // width if width and size % width == 0 else "other" for size in shape)
