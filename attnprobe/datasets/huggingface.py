"""Sets of the Hugging Face `datasets` package: from the hub, saved to disk, or Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attnprobe.datasets import splits
from attnprobe.datasets.pictures import Pictures, labelled
from attnprobe.errors import ImagesError
from attnprobe.images.sources import LARGEST_FILE, read_file

PREFIX = "hf:"
_IMAGE_NAMES = ("image", "img", "jpg", "png")
_LABEL_NAMES = ("label", "labels")


class Columns(NamedTuple):
    """Names of the columns with images and labels; empty: to be found."""

    image: str = ""
    label: str = ""


ANY = Columns()


@dataclass(frozen=True)
class Rows:
    """Images in a column of an Arrow table.

    Attributes:
        title: What the set is called.
        table: A `datasets.Dataset` whose only column holds undecoded images.
        column: Name of the column.
    """

    title: str
    table: Any
    column: str
    hashed = "listing"

    def __len__(self) -> int:
        return len(self.table)

    def name(self, index: int) -> str:
        """Return the set and the row."""
        return f"{self.title}#{index:05d}"

    def read(self, index: int) -> bytes:
        """Return one image file.

        Raises:
            ImagesError: The row holds none, or it cannot be read.
        """
        held = self.table[index][self.column] or {}
        data, path = held.get("bytes"), held.get("path")
        if data is None:
            if not path:
                raise ImagesError("the row holds no image")
            return read_file(Path(path))
        if len(data) > LARGEST_FILE:
            raise ImagesError(f"a file of {len(data) >> 20} MiB is no image")
        return data

    def facts(self) -> Iterator[bytes]:
        """Yield what the set says about itself."""
        info = self.table.info
        sums = sorted((info.download_checksums or {}).items())
        yield f"{info.dataset_name}\0{info.config_name}\0{info.dataset_size}\0{sums}".encode()


def open_named(name: str, *, split: str, root: str, columns: Columns = ANY) -> Pictures:
    """Open hf:NAME or hf:NAME:CONFIG, from the hub or its cache.

    Args:
        name: The name.
        split: Which part.
        root: Folder of the cache; the hub's own if empty.
        columns: Where images and labels are.

    Raises:
        ImagesError: The package is missing, or the set cannot be had.
    """
    repository, _, config = name.removeprefix(PREFIX).partition(":")
    hub = _package()
    try:
        held = hub.load_dataset(repository, config or None, cache_dir=root or None)
    except Exception as error:  # the hub and its readers raise whatever they meet
        raise ImagesError(
            f"{name} cannot be had from the Hugging Face hub ({_first_line(error)})",
            "check name and config; without a network only sets that were fetched before open",
        ) from error
    return _pictures(name, held[splits.choose(name, held, split)], columns)


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def open_saved(path: Path, *, split: str, columns: Columns = ANY) -> Pictures:
    """Open a folder that `save_to_disk` wrote.

    Raises:
        ImagesError: The package is missing, or the folder is damaged.
    """
    hub = _package()
    try:
        held = hub.load_from_disk(str(path))
    except Exception as error:  # as above
        raise ImagesError(
            f"{path} cannot be opened as a saved data set ({_first_line(error)})",
            "save it again with save_to_disk",
        ) from error
    if isinstance(held, hub.DatasetDict):
        held = held[splits.choose(str(path), held, split)]
    return _pictures(str(path), held, columns)


def open_parquet(label: str, paths: list[Path], *, columns: Columns = ANY) -> Pictures:
    """Open Parquet files, in order.

    Raises:
        ImagesError: The package is missing, or a file is damaged.
    """
    hub = _package()
    try:
        held = hub.load_dataset("parquet", data_files=[str(path) for path in paths], split="train")
    except Exception as error:  # as above
        raise ImagesError(
            f"{label} cannot be read as Parquet ({_first_line(error.__cause__ or error)})",
            "fetch or write the files again",
        ) from error
    return _pictures(label, held, columns)


def _pictures(label: str, table: Any, columns: Columns) -> Pictures:
    image = columns.image or _image_column(label, table)
    _check_column(label, table, image)
    numbers, classes = _labels(label, table, columns.label)
    undecoded = _package().Image(decode=False)
    try:
        held = table.select_columns([image]).cast_column(image, undecoded)
    except Exception as error:  # arrow raises whatever it meets
        raise ImagesError(
            f"column {image} of {label} cannot be read as images ({_first_line(error)})",
            "name the column with images",
        ) from error
    return labelled(label, Rows(label, held.with_format(None), image), numbers, classes)


def _image_column(label: str, table: Any) -> str:
    """Return the column of type Image; of several the one that is called so, or the first."""
    kind = _package().Image
    found = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    known = [name for name in _IMAGE_NAMES if name in (found or table.features)]
    if not (known or found):
        raise ImagesError(
            f"{label} has no column of images, only {', '.join(table.features)}",
            "choose a set of images, or name the column",
        )
    return (known or found)[0]


def _labels(label: str, table: Any, column: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return class numbers and names; None where a split hides its labels (all -1)."""
    kind = _package().ClassLabel
    named = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    known = [name for name in _LABEL_NAMES if name in table.features]
    column = column or next(iter(known + named), "")
    if not column:
        return None, ()
    _check_column(label, table, column)
    held = np.asarray(table.select_columns([column]).with_format(None)[:][column])
    feature = table.features[column]
    if held.dtype.kind in "US":
        names, numbers = np.unique(held, return_inverse=True)
        return numbers, tuple(map(str, names))
    if held.dtype.kind in "iu" and (held == -1).all():
        return None, ()
    return held, tuple(feature.names) if isinstance(feature, kind) else ()


def _check_column(label: str, table: Any, name: str) -> None:
    if name not in table.features:
        raise ImagesError(
            f"{label} has no column {name!r}, only {', '.join(table.features)}", "name one of these"
        )


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImagesError(
            "Hugging Face sets and Parquet files need the package `datasets`",
            "pip install 'attnprobe[data]'",
        ) from error
    return datasets


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
