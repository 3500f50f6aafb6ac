"""What some of the images of a run gave: the pieces that are put on disk and sent around.

A part holds numbers only, as numpy arrays, so that it can be written after every batch, read
back after an interruption and gathered from other processes. Parts can be joined in any order:
everything in them is keyed by the number of an image among the candidates. Torch-free.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from attnprobe.errors import AttnprobeError
from attnprobe.types import LayerInfo, TokenGrid

SEPARATOR = "|"  # neither metrics nor fields have it in their names
Arrays = dict[str, np.ndarray]


def _numbers() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


def _digests() -> np.ndarray:
    return np.empty((0, 32), dtype=np.uint8)


@dataclass
class Part:
    """What some images gave.

    Attributes:
        numbers: Images measured, by number among the candidates, int64 [n].
        digests: Hash of each one's content, uint8 [n, 32].
        skipped: Why an image could not be read, by its number.
        rows: Values an image, "metric|layer": [n, ...].
        sums: Sums over images, float64, "layer": [...].
        pending: Numbers of the images whose features wait for their mini-batch, int64 [m].
        features: Their features, "metric|layer": [m, channels].
        groups: Finished mini-batches by number, "metric|what": array.
        maps: Attention maps by number of the image.
        layers: The attention layers; empty where nothing ran.
        kernels: The kernels that measured.
    """

    numbers: np.ndarray = field(default_factory=_numbers)
    digests: np.ndarray = field(default_factory=_digests)
    skipped: dict[int, str] = field(default_factory=dict)
    rows: Arrays = field(default_factory=dict)
    sums: Arrays = field(default_factory=dict)
    pending: np.ndarray = field(default_factory=_numbers)
    features: Arrays = field(default_factory=dict)
    groups: dict[int, Arrays] = field(default_factory=dict)
    maps: dict[int, Arrays] = field(default_factory=dict)
    layers: tuple[LayerInfo, ...] = ()
    kernels: tuple[str, ...] = ()

    @property
    def seen(self) -> set[int]:
        """Numbers of the candidates that this part accounts for, read or skipped."""
        return {*self.numbers.tolist(), *self.skipped}


def joined(parts: Iterable[Part]) -> Part:
    """Return several parts as one, images in the order of their numbers.

    Raises:
        AttnprobeError: Two parts measured other layers.
    """
    found = [part for part in parts if len(part.numbers) or part.skipped]
    if not found:
        return Part()
    layers = _layers(found)
    whole = Part(
        layers=layers,
        kernels=tuple(sorted({name for part in found for name in part.kernels})),
        numbers=np.concatenate([part.numbers for part in found]),
        digests=np.concatenate([part.digests for part in found]),
        pending=np.concatenate([part.pending for part in found]),
        rows=_concatenated([part.rows for part in found if len(part.numbers)]),
        features=_concatenated([part.features for part in found if len(part.pending)]),
    )
    for part in found:
        whole.skipped |= part.skipped
        whole.groups |= part.groups
        whole.maps |= part.maps
        add_sums(whole.sums, part.sums)
    order = np.argsort(whole.numbers, kind="stable")
    whole.numbers, whole.digests = whole.numbers[order], whole.digests[order]
    whole.rows = {name: value[order] for name, value in whole.rows.items()}
    return whole


def add_sums(total: Arrays, more: Arrays) -> None:
    """Add sums over other images to a total, by name; arrays that others hold stay as they are."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value


def by_layer(held: Mapping[str, Any], metric: str) -> dict[int, Any]:
    """Return what is held of one metric, by layer and in the order of layers.

    >>> by_layer({"cka|10": "c", "entropy|0": "b", "cka|2": "a"}, "cka")
    {2: 'a', 10: 'c'}
    """
    named = (name.partition(SEPARATOR) for name in held)
    layers = sorted(int(layer) for owner, _, layer in named if owner == metric)
    return {layer: held[f"{metric}{SEPARATOR}{layer}"] for layer in layers}


def arrays_of(part: Part) -> tuple[Arrays, str]:
    """Return a part as flat arrays and one line of JSON, for safetensors."""
    flat: Arrays = {"numbers": part.numbers, "digests": part.digests, "pending": part.pending}
    for kind in ("rows", "sums", "features"):
        flat |= {f"{kind}/{name}": value for name, value in getattr(part, kind).items()}
    for kind in ("groups", "maps"):
        for number, held in getattr(part, kind).items():
            flat |= {f"{kind}/{number}/{name}": value for name, value in held.items()}
    facts = {
        "skipped": sorted(part.skipped.items()),
        "layers": [asdict(layer) for layer in part.layers],
        "kernels": part.kernels,
    }
    return {name: np.ascontiguousarray(value) for name, value in flat.items()}, json.dumps(facts)


def part_of(arrays: Arrays, text: str) -> Part:
    """Return the part that `arrays_of` took apart.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It is none.
    """
    facts = json.loads(text)
    part = Part(
        numbers=arrays["numbers"],
        digests=arrays["digests"],
        pending=arrays["pending"],
        skipped={int(number): str(reason) for number, reason in facts["skipped"]},
        layers=tuple(_layer(held) for held in facts["layers"]),
        kernels=tuple(facts["kernels"]),
    )
    for path, value in arrays.items():
        kind, _, name = path.partition("/")
        if kind in {"rows", "sums", "features"}:
            getattr(part, kind)[name] = value
        elif kind in {"groups", "maps"}:
            number, _, name = name.partition("/")
            getattr(part, kind).setdefault(int(number), {})[name] = value
    return part


def _concatenated(held: list[Arrays]) -> Arrays:
    if not held:
        return {}
    return {name: np.concatenate([arrays[name] for arrays in held]) for name in held[0]}


def _layers(parts: list[Part]) -> tuple[LayerInfo, ...]:
    """Return the layers; every batch must have had the same, on whatever machine."""
    held = {part.layers for part in parts if part.layers}
    if len(held) > 1:
        raise AttnprobeError("the model's layers changed between batches", "use images of one size")
    return held.pop() if held else ()


def check(part: Part, count: int) -> None:
    """Refuse what no measurement of `count` candidates writes.

    Raises:
        ValueError: Numbers, shapes or types are not those of a part.
    """
    sizes = len(part.numbers), len(part.pending)
    whole = [(part.digests, np.uint8, sizes[0])]
    whole += [(x, None, sizes[0]) for x in part.rows.values()]
    whole += [(x, None, sizes[1]) for x in part.features.values()]
    sound = all(len(x) == size and kind in (None, x.dtype) for x, kind, size in whole)
    numbers = [part.numbers, part.pending, *(held["numbers"] for held in part.groups.values())]
    for held in numbers:
        sound &= held.dtype == np.int64 and held.ndim == 1 and len(np.unique(held)) == len(held)
        sound &= all(0 <= number < count for number in held.tolist())
    sound &= part.digests.shape == (sizes[0], 32) and not set(part.skipped) & set(numbers[0])
    if not (sound and all(0 <= number < count for number in part.skipped)):
        raise ValueError("not a part of this measurement")


def _layer(held: dict[str, Any]) -> LayerInfo:
    """Return a layer from JSON, where tuples have become lists."""
    grid = _grid(held["grid"])
    return LayerInfo(**{**held, "grid": grid})


def _grid(held: dict[str, Any] | None) -> TokenGrid | None:
    if held is None:
        return None
    kept: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in held.items()}
    return TokenGrid(**{**kept, "keys": _grid(kept.get("keys"))})
