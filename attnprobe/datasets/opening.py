"""Recognise what a source is: folder, list, npz, tar shards, Hugging Face or torchvision set."""

import os
from pathlib import Path

import numpy as np

from attnprobe import npz
from attnprobe.datasets import huggingface, named, shards, splits
from attnprobe.datasets.pictures import Pictures, labelled
from attnprobe.datasets.stores import Blob, Files, Packed, packed
from attnprobe.errors import ImagesError
from attnprobe.images import sources


def open_pictures(
    source: str | Path,
    *,
    split: str = "train",
    root: str | Path = "",
    download: bool = False,
    image_column: str = "",
    label_column: str = "",
) -> Pictures:
    """List the images of a source, with their labels where it has any.

    A folder has one sub-folder a class; with images at its top it has no labels. Where it is
    divided into `train`, `val`, ..., the split is taken. Other sources: an image file, a
    `.txt` with one path a line, an `.npz` of JPEGs (`jpeg`, `offset`, and `label`,
    `classes`), a `.tar` or WebDataset shards (`shards-{000..009}.tar`, a folder of them, a
    list with commas), `hf:NAME[:CONFIG]`, a folder that `datasets` saved, Parquet files,
    `torch/cifar10`, "bundled".

    Args:
        source: What to open.
        split: Which part, where there are several: train, val, test or the set's own word.
        root: Where sets that are opened by name lie, or are to be kept.
        download: Let torchvision download a set; `hf:` follows the hub's own settings.
        image_column: Column of a Hugging Face set with images; found by type if empty.
        label_column: Column with labels; found by type or by the name `label` if empty.

    Raises:
        ImagesError: There are no such images, or labels that do not fit them.
    """
    label = str(source)
    columns = huggingface.Columns(image_column, label_column)
    if label.startswith(huggingface.PREFIX):
        return huggingface.open_named(label, split=split, root=str(root), columns=columns)
    if label == "bundled":
        return _listed(label, Path(label))
    path = Path(source)
    if os.path.isdir(path):  # noqa: PTH112 - unlike pathlib's it never raises
        return _from_folder(path, split, columns)
    if os.path.exists(path):  # noqa: PTH110
        return _from_file(path, columns)
    if named.is_name(label):
        return named.open_named(label, split=split, root=str(root), download=download)
    if shards.is_pattern(label):
        return shards.open_shards(label, shards.expand(label))
    raise ImagesError(
        f"{label} does not exist",
        "give a folder, .txt, .npz, .tar or Parquet file, or a name such as hf:NAME, torch/cifar10",
    )


def _from_file(path: Path, columns: huggingface.Columns) -> Pictures:
    match path.suffix.lower():
        case ".npz":
            return _from_npz(path)
        case ".tar":
            return shards.open_shards(str(path), [path])
        case ".parquet":
            return huggingface.open_parquet(str(path), [path], columns=columns)
    return _listed(str(path), path)


def _from_folder(path: Path, split: str, columns: huggingface.Columns) -> Pictures:
    label = str(path)
    if huggingface.is_saved(path):
        return huggingface.open_saved(path, split=split, columns=columns)
    folder = splits.folder_of(path, split)
    if found := splits.files_of(folder, ".tar", split):
        return shards.open_shards(label, found)
    if found := splits.files_of(folder, ".parquet", split):
        return huggingface.open_parquet(label, found, columns=columns)
    return _classes(str(folder), folder)


def _classes(label: str, root: Path) -> Pictures:
    """Images below a folder; the first folder of their path is their class."""
    images = _files(root, sources.find(root))
    tops = [name.partition(b"/")[0] for name in map(images.names.__getitem__, range(len(images)))]
    if any(b"/" not in images.names[index] for index in range(len(images))):
        return labelled(label, images)
    names = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."
    )
    numbers = {os.fsencode(name): number for number, name in enumerate(names)}
    return labelled(
        label, images, [numbers[top] for top in tops], [sources.text(name) for name in names]
    )


def _listed(label: str, path: Path) -> Pictures:
    """Images of a list, of one file, or bundled: without labels."""
    found = sources.find(label if label == "bundled" else path)
    return labelled(label, _files(Path(os.curdir), found))


def _files(root: Path, found: sources.Source) -> Files:
    """Keep the places of image files as names relative to a folder."""
    start = "" if root == Path(os.curdir) else f"{root}{os.sep}"
    paths = (str(entry.path) for entry in found.entries)
    return Files(root, packed(os.fsencode(path.removeprefix(start)) for path in paths))


def _from_npz(path: Path) -> Pictures:
    try:
        held = sources.bundle(path)
    except npz.UNREADABLE as error:
        raise ImagesError(f"cannot read {path}: {error}", "write it again") from error
    classes = held.get("classes", np.empty(0, dtype=str)).ravel().tolist()
    images = Blob(sources.text(path.name), Packed(held["jpeg"], held["offset"]))
    return labelled(str(path), images, held.get("label"), classes)
