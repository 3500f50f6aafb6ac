"""Where a checkpoint comes from: a path, a catalogue name, `timm:`, `hf:` or an https address."""

import os
from dataclasses import dataclass
from pathlib import Path

from attnprobe import catalogue, shipped
from attnprobe.catalogue import CheckpointRecord
from attnprobe.catalogue.records import FILE, HTTPS, HUB, SHIPPED, TIMM
from attnprobe.checkpoints.origins import cache, downloads, repositories, transfers
from attnprobe.checkpoints.origins.announcing import announced
from attnprobe.checkpoints.reading import weightfiles
from attnprobe.errors import CheckpointError


@dataclass(frozen=True)
class Located:
    """Where the weights of a source are.

    Attributes:
        label: What the user gave, with the commit where a hub was asked.
        path: The file, or a folder of a training run, or None where timm fetches it.
        timm: `timm:NAME`, or nothing.
        name: Label for tables where the file's name says little, or nothing.
        record: The catalogue's record, if there is one.
        sha256: The hash that the file should have, or nothing where none is known.
    """

    label: str
    path: Path | None = None
    timm: str = ""
    name: str = ""
    record: CheckpointRecord | None = None
    sha256: str = ""


def resolve(source: str | Path) -> Located:
    """Return where the weights of a source are, fetching them if need be.

    Raises:
        CheckpointError: There is nothing, or it cannot be fetched.

    >>> resolve("timm:vit_tiny_patch16_224").timm
    'timm:vit_tiny_patch16_224'
    """
    text = str(source)
    if text.startswith(TIMM):
        return Located(text, timm=text)
    if text.startswith(HUB):
        return _of_hub(text)
    if "://" in text and isinstance(source, str):
        return of_record(_named_by(text))
    there = os.path.exists(source)  # noqa: PTH110 - unlike pathlib's it never raises
    record = None if there else catalogue.catalogue().get(text)
    if record is not None:
        return of_record(record)
    return Located(text, path=weightfiles.locate(source))


def of_record(record: CheckpointRecord) -> Located:
    """Return where the weights of a record are, fetching them if need be.

    Raises:
        CheckpointError: They cannot be fetched, or have to be downloaded by hand.
    """
    source = record.source
    if source.startswith(TIMM):
        return Located(record.name, timm=source, name=record.name, record=record)
    if source.startswith(HUB):
        path, sha256 = repositories.fetch(source)[0], record.sha256
    elif source.startswith(SHIPPED):
        path, sha256 = _shipped(record), record.sha256
    elif source.startswith(FILE):
        path, sha256 = _placed(record)
    elif "://" in source:
        path, sha256 = _downloaded(record)
    else:
        path, sha256 = weightfiles.locate(source), record.sha256
    return Located(record.name, path, name=record.name, record=record, sha256=sha256)


def check(located: Located, found: str) -> None:
    """Refuse a file whose hash is not the one that its record names.

    Raises:
        CheckpointError: It is another one.
    """
    if located.sha256 not in ("", found):
        raise CheckpointError(
            f"{located.path} is not {located.label}: its sha256 is {found}, expected "
            f"{located.sha256}",
            "get the file again, or correct the record with `attnprobe checkpoints add`",
        )


def _of_hub(source: str) -> Located:
    wanted = repositories.parse(source)
    path, label = repositories.fetch(source)
    return Located(label, path, name=wanted.repo.rpartition("/")[2])


def _named_by(address: str) -> CheckpointRecord:
    record = catalogue.named_by(address)
    if record is not None:
        return record
    scheme = "" if address.startswith(HTTPS) else ", and only https addresses are fetched"
    raise CheckpointError(
        f"the catalogue names no {address}{scheme}",
        "`attnprobe checkpoints add NAME --source ADDRESS` first, or download it and give its path",
    )


def _shipped(record: CheckpointRecord) -> Path:
    path = shipped.path("checkpoints") / record.source.removeprefix(SHIPPED)
    if path.is_file():
        return path
    raise CheckpointError(
        f"{record.name}: the installation lacks {path.name}", "reinstall attnprobe"
    )


def _downloaded(record: CheckpointRecord) -> tuple[Path, str]:
    if not transfers.allowed(record.source):
        raise CheckpointError(
            f"{record.name}: {record.source} is not https", "correct the record's source"
        )
    wanted = _wanted(record)
    with announced(record.name, wanted.target) as update:
        found = downloads.download(wanted, update)
    return wanted.target, found.sha256


def _placed(record: CheckpointRecord) -> tuple[Path, str]:
    """Return the file that has to be downloaded by hand, if it lies where it is looked for."""
    wanted = _wanted(record)
    found = downloads.present(wanted)
    if found is not None:
        return wanted.target, found.sha256
    told = wanted.target.name
    raise CheckpointError(
        f"{record.name} is not fetched by itself: its authors publish {told}",
        f"download it from {record.homepage or 'their page'}, and give the path of the file or "
        f"place it at {wanted.target}",
    )


def _wanted(record: CheckpointRecord) -> downloads.Wanted:
    address = "" if record.source.startswith(FILE) else record.source
    return downloads.Wanted(record.name, address, cache.place(record), record.sha256, record.size)
