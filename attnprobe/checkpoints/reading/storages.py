"""Tensors as views of a mapped file, each checked against the bytes that it may look at."""

import math
import mmap
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST_INDEX = 2**62
MOST_AXES = 64
STORAGES = {  # torch's storage classes by name, as pickles spell them
    "UntypedStorage": torch.uint8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt2x4Storage": torch.quint2x4,
}


@dataclass(frozen=True)
class Storage:
    """Bytes of a file that tensors view.

    Attributes:
        data: The mapped file.
        start: First byte.
        size: Bytes.
        dtype: What they are elements of.
        swapped: Whether their byte order is not this machine's.
        copies: Its bytes, where they had to be copied, by the width of what was turned in
            them; all views share one.
    """

    data: mmap.mmap
    start: int
    size: int
    dtype: torch.dtype
    swapped: bool = False
    copies: dict[int, bytearray] = field(default_factory=dict, compare=False)

    def flat(self, dtype: torch.dtype) -> Tensor:
        """Return all elements as one vector: of the map itself, or a copy where need be."""
        count = self.size // dtype.itemsize
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if not self.start % dtype.itemsize and not self.swapped:
            return torch.frombuffer(self.data, dtype=dtype, count=count, offset=self.start)
        # a complex number is two reals, each with its own byte order
        width = dtype.itemsize // (2 if dtype.is_complex else 1) if self.swapped else 1
        if width not in self.copies:
            self.copies[width] = self._copied(width)
        return torch.frombuffer(self.copies[width], dtype=dtype, count=count)

    def _copied(self, width: int) -> bytearray:
        raw = bytearray(self.data[self.start : self.start + self.size])
        if width > 1:
            turned = torch.frombuffer(raw, dtype=torch.uint8, count=self.size // width * width)
            turned.copy_(turned.view(-1, width).flip(1).flatten())
        return raw


def mapped(path: Path) -> mmap.mmap:
    """Map a file so that its pages are read when used, and writes to them stay private.

    Raises:
        ValueError: It is a device, a pipe or a socket, which opening could wait for.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def view(storage: Any, dtype: torch.dtype | None, place: Iterable[Any]) -> Tensor:
    """Return a tensor of a storage, or one without data where it is quantised.

    Args:
        storage: The storage.
        dtype: Another type of its elements, or None.
        place: Offset, size and stride, in elements.

    Raises:
        ValueError: These are no numbers, or they reach outside the storage.
    """
    offset, size, stride = place
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    dtype = dtype or storage.dtype
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor whose type is none")
    reach = _reach(offset, size, stride)
    if reach * dtype.itemsize > storage.size:
        raise ValueError(
            f"a tensor reaches element {reach} of a storage that has "
            f"{storage.size // dtype.itemsize}"
        )
    if dtype in (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4):
        return without_data(size, torch.int8)
    return storage.flat(dtype).as_strided(tuple(size), tuple(stride), offset)


def without_data(size: Any, dtype: Any) -> Tensor:
    """Return what stands for a tensor whose values are not read: quantised, sparse, meta."""
    _reach(0, size, size)
    kept = dtype if isinstance(dtype, torch.dtype) else torch.float32
    return torch.empty(tuple(size), dtype=kept, device="meta")


def _reach(offset: Any, size: Any, stride: Any) -> int:
    """Return how many elements a storage must have."""
    if not isinstance(size, tuple | list) or not isinstance(stride, tuple | list):
        raise ValueError("a tensor without a size or stride")
    if len(size) != len(stride) or len(size) > MOST_AXES:
        raise ValueError(f"a tensor of {len(size)} axes with {len(stride)} strides")
    if any(type(value) is not int or value < 0 for value in (offset, *size, *stride)):
        raise ValueError("a tensor whose size, stride or offset is no count")
    reach = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # zero-size axes do not hide an overflowing product of the others from torch
    if max(reach, math.prod(n or 1 for n in size)) > LARGEST_INDEX:
        raise ValueError("a tensor larger than any memory")
    return 0 if 0 in size else reach


def rebuilt(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Rebuild a tensor as torch pickles it."""
    return view(storage, None, (offset, size, stride))


def _rebuilt_as(*args: Any) -> Tensor:
    storage, offset, size, stride, _, _, dtype, *_ = args
    return view(storage, dtype, (offset, size, stride))


def _quantised(storage: Any, _: Any, size: Any, *rest: Any) -> Tensor:
    return without_data(size, torch.int8)


def _sparse(_: Any, data: Any) -> Tensor:
    """The size is the last tuple, the values the last tensor before it."""
    data = data[:6]
    size = next((item for item in reversed(data) if isinstance(item, tuple | list)), None)
    values = [item for item in data if isinstance(item, Tensor)]
    return without_data(size, values[-1].dtype)


def _meta(dtype: Any, size: Any, *_: Any) -> Tensor:
    return without_data(size, dtype)


def _first(data: Any, *_: Any) -> Any:
    return data


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": rebuilt,
    "torch._utils._rebuild_tensor_v2": rebuilt,
    "torch._utils._rebuild_tensor_v3": _rebuilt_as,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
}


@dataclass(frozen=True)
class Declared:
    """A storage as a pickle names it.

    Attributes:
        key: Which one.
        dtype: Type of its elements.
        count: How many elements it has.
    """

    key: str
    dtype: torch.dtype
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * self.dtype.itemsize


def declared(place: Any) -> Declared:
    """Read how a pickle names a storage.

    Raises:
        ValueError: In a way that torch does not.
    """
    if not isinstance(place, tuple) or not 5 <= len(place) <= 6 or place[0] != "storage":
        raise ValueError("an object outside the pickle that is no storage")
    kind, key, count = place[1], place[2], place[4]
    dtype = STORAGES.get(str(getattr(kind, "name", "")).rpartition(".")[2])
    if dtype is None or not isinstance(key, str) or type(count) is not int:
        raise ValueError("a storage whose type, key or size is unknown")
    if not 0 <= count < LARGEST_INDEX:
        raise ValueError(f"a storage of {count} elements")
    if len(place) == 6 and place[5] is not None:
        raise ValueError("a storage that is a part of another, as torch wrote before 2018")
    return Declared(key, dtype, count)


def checked(wanted: Declared, found: Storage) -> Storage:
    """Return a storage of the declared type and size.

    Raises:
        ValueError: The file has fewer or more bytes for it.
    """
    if wanted.size != found.size:
        raise ValueError(
            f"storage {wanted.key[:40]!a} declares {wanted.count} elements ({wanted.size} bytes), "
            f"the file has {found.size} bytes for it"
        )
    return replace(found, size=wanted.size, dtype=wanted.dtype)
