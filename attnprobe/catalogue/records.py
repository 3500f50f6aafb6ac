"""What one record of the catalogue says, and how a table of a TOML file becomes one."""

import re
import tomllib
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attnprobe.errors import CheckpointError

TIMM, HUB, SHIPPED, FILE, HTTPS = "timm:", "hf:", "shipped:", "file:", "https://"
OBJECTIVES = (
    *("mim", "contrastive", "self-distillation", "predictive"),
    *("language-image", "supervised", "unknown"),
)
FINE_TUNED = ", fine-tuned"
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}")
_HOST = re.compile(r"https://[\w.-]+(:\d+)?/\S+|http://(127\.0\.0\.1|localhost)(:\d+)?/\S+")
_MORE = 2**50  # bytes; a size above is a slip of the pen


@dataclass(frozen=True)
class CheckpointRecord:
    """What is known of a public checkpoint.

    Attributes:
        name: Catalogue name.
        source: `timm:NAME.tag`, `hf:OWNER/REPO`, an `https://` address, `shipped:FILE`, a path,
            or `file:NAME` for one to download by hand.
        architecture: timm model name.
        format: Checkpoint format that it arrives in.
        input_size: Channels, height, width.
        mean: Mean of the normalisation.
        std: Standard deviation of the normalisation.
        objective: Training objective: one of `OBJECTIVES`; ", fine-tuned" after it where labels
            came later.
        data: Training images.
        licence: Licence of the weights.
        citation: Short citation.
        homepage: Where its authors publish it.
        file: Name of the file, where the source does not end in it.
        size: Bytes of the file, once known.
        sha256: Hash of the file, once known.
    """

    name: str
    source: str
    architecture: str = ""
    format: str = ""
    input_size: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    objective: str = "unknown"
    data: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    file: str = ""
    size: int = 0
    sha256: str = ""

    @property
    def come_from(self) -> str:
        """How the weights come here, in a word or two."""
        if "://" in self.source:
            return "download"
        kinds = {TIMM: "timm", HUB: "hub", SHIPPED: "in the box", FILE: "by hand"}
        return next((told for kind, told in kinds.items() if self.source.startswith(kind)), "path")


FIELDS = tuple(item.name for item in fields(CheckpointRecord) if item.name != "name")
_TYPES = typing.get_type_hints(CheckpointRecord)


def read(path: Path) -> dict[str, CheckpointRecord]:
    """Return the records of a catalogue file by name.

    Raises:
        CheckpointError: It cannot be read, or one of its tables is no record; the line is said.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except ValueError as error:  # TOML that is none says its line; bytes that are no UTF-8
        raise CheckpointError(
            f"{path} is no catalogue: {error}", "correct that line, or move the file away"
        ) from error
    found = {}
    for name, table in tables.items():
        try:
            found[name] = record(name, table)
        except CheckpointError as error:
            where = f"{path}, line {_line(text, name)}"
            raise CheckpointError(f"{where}: {error.cause}", error.remedy) from error
    return found


def record(name: str, table: Any) -> CheckpointRecord:
    """Return a record from a table of a TOML file.

    Raises:
        CheckpointError: A field is unknown, missing, or not what it should be.

    >>> record("mine", {"source": "timm:vit_tiny_patch16_224", "mean": [0.5, 0.5, 0.5]}).mean
    (0.5, 0.5, 0.5)
    """
    if not isinstance(table, dict):
        raise CheckpointError(f"{name} is no table", f"write [{name}] and its fields below it")
    unknown = sorted(set(table) - set(FIELDS))
    if unknown:
        raise CheckpointError(
            f"{name} has unknown fields {', '.join(unknown)}", f"use: {', '.join(FIELDS)}"
        )
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"{name!r} is no name of a record", "use letters, digits and . _ + - (at most 100)"
        )
    for field, value in table.items():
        _check(name, field, value)
    if not table.get("source"):
        raise CheckpointError(
            f"{name} has no source", "say where its weights are: source = 'timm:NAME', a path, ..."
        )
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list | tuple)}
    return CheckpointRecord(name=name, **{**table, **lists})


def _check(name: str, field: str, value: Any) -> None:
    wanted, fits = _RULES.get(field, _TEXT)
    if not fits(value):
        raise CheckpointError(f"{name}: {field} = {value!r} is not {wanted}", f"correct {field}")


def _is_source(value: Any) -> bool:
    if not isinstance(value, str) or not value.isprintable():
        return False
    return bool(_HOST.fullmatch(value)) if "://" in value else bool(value.strip())


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) in (0, 3) and all(map(_is_count, value))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**20


def _is_channels(value: Any) -> bool:
    numbers = isinstance(value, list | tuple) and len(value) < 2**10
    return numbers and all(type(item) in (int, float) and -1e6 < item < 1e6 for item in value)


def _is_objective(value: Any) -> bool:
    return isinstance(value, str) and value.removesuffix(FINE_TUNED) in OBJECTIVES


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and (not value or is_file_name(value))


def is_file_name(text: str) -> bool:
    """Whether a text names a file without leading to another folder.

    >>> is_file_name("vit-b.pth.tar"), is_file_name("../x"), is_file_name(".x")
    (True, False, False)
    """
    return bool(re.fullmatch(r"[^\W_][\w.+=@ -]{0,199}", text)) and text == text.strip()


_TEXT: tuple[str, Callable[[Any], bool]] = (
    "one line of text",
    lambda value: isinstance(value, str) and value.isprintable(),
)
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "source": ("a path, timm:NAME, hf:OWNER/REPO, file:NAME or an https address", _is_source),
    "input_size": ("three numbers: channels, rows, columns", _is_size),
    "mean": ("a list of numbers, one a channel", _is_channels),
    "std": ("a list of numbers, one a channel", _is_channels),
    "objective": (
        f"one of {', '.join(OBJECTIVES)} (with '{FINE_TUNED}' after it)",
        _is_objective,
    ),
    "file": ("a plain file name", _is_plain),
    "size": (
        "a number of bytes",
        lambda value: type(value) is int and 0 <= value < _MORE,
    ),
    "sha256": (
        "64 hexadecimal digits",
        lambda value: isinstance(value, str) and bool(re.fullmatch(r"([0-9a-f]{64})?", value)),
    ),
}


def _line(text: str, name: str) -> int:
    """Return the line on which a table begins; names may be quoted."""
    head = re.compile(rf"\s*(\[\s*)?[\"']?{re.escape(name)}[\"']?\s*[]=.]")
    return next((i for i, line in enumerate(text.splitlines(), 1) if head.match(line)), 1)
