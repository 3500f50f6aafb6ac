"""Safetensors by its header, every entry of which is checked before a tensor is made."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import torch
from torch import Tensor

from attnprobe.checkpoints.reading.storages import Storage

LARGEST_HEADER = 8_000_000  # about seventy thousand tensors
LARGEST_SIDE = 2**62
MOST_AXES = 64
_PREFIX = 8  # bytes that say how long the header is
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


@dataclass(frozen=True)
class Span:
    """Where a tensor lies after the header.

    Attributes:
        name: Its name.
        dtype: Type of its elements.
        shape: Its shape.
        start: First byte.
        stop: First byte after it.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def read(data: mmap) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file as views of it, and its metadata.

    Raises:
        ValueError: The header is damaged, or does not agree with the size of the file.
    """
    length = int.from_bytes(data[:_PREFIX], "little")
    if length > len(data) - _PREFIX:
        raise ValueError(
            f"truncated or not safetensors: its header claims {length} bytes, "
            f"the file has {len(data)}"
        )
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, expected at most {LARGEST_HEADER}")
    origin = _PREFIX + length
    header = mapping(data[_PREFIX:origin])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its __metadata__ is no mapping of texts")
    spans = [_span(name, entry) for name, entry in header.items()]
    _check_cover(spans, len(data) - origin)
    return {span.name: _tensor(data, origin, span) for span in spans}, metadata


def mapping(text: bytes | str) -> dict[str, Any]:
    """Parse JSON that must be a mapping in which no key comes twice.

    Raises:
        ValueError: It is something else, damaged, or nested too deep.

    >>> mapping('{"a": 1}')
    {'a': 1}
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError(f"its JSON is a {type(found).__name__}, expected a mapping")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{twice[:80]!a} comes twice in its JSON")
    return found


def _span(name: str, entry: Any) -> Span:
    told = f"tensor {name[:80]!a}"
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{told} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{told} has dtype {str(dtype)[:20]!a}, expected {' '.join(DTYPES)}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > MOST_AXES:
        raise ValueError(f"{told} has a shape or offsets that are no counts")
    start, stop = offsets
    claimed = math.prod(shape) * DTYPES[dtype].itemsize
    if stop - start != claimed or math.prod(side or 1 for side in shape) > LARGEST_SIDE:
        raise ValueError(
            f"{told} claims shape {str(shape)[:100]} of {dtype} ({claimed} bytes) in "
            f"{stop - start} bytes"
        )
    return Span(name, DTYPES[dtype], tuple(shape), start, stop)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= LARGEST_SIDE for value in values
    )


def _check_cover(spans: list[Span], size: int) -> None:
    """Refuse tensors that overlap, leave gaps, or end before or after the file does."""
    last = 0
    for span in sorted(spans, key=lambda span: (span.start, span.stop)):
        if span.start != last:
            how = "overlaps another" if span.start < last else "leaves a gap before it"
            raise ValueError(f"tensor {span.name[:80]!a} {how} (at byte {span.start})")
        last = span.stop
    if last != size:
        raise ValueError(f"its tensors take {last} bytes, {size} follow the header")


def _tensor(data: mmap, origin: int, span: Span) -> Tensor:
    if span.start == span.stop:
        return torch.empty(span.shape, dtype=span.dtype)
    storage = Storage(data, origin + span.start, span.stop - span.start, span.dtype)
    return storage.flat(span.dtype).reshape(span.shape)
