"""The catalogue: known public checkpoints as a table of facts, one TOML table each.

Nothing here imports torch, so that `attnprobe list checkpoints` answers at once.
"""

import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from attnprobe import shipped
from attnprobe.errors import CheckpointError
from attnprobe.types import CheckpointSpec

SHIPPED = "shipped:"
FILE = "file:"


@dataclass(frozen=True)
class CheckpointRecord:
    """What is known of a public checkpoint.

    Attributes:
        name: Catalogue name.
        architecture: timm model name.
        format: Checkpoint format that it arrives in.
        source: `timm:NAME.tag`, `shipped:FILE`, or `file:NAME` for one to download by hand.
        input_size: Channels, height, width.
        mean: Mean of the normalisation.
        std: Standard deviation of the normalisation.
        objective: Training objective.
        data: Training images.
        licence: Licence of the weights.
        citation: Short citation.
        homepage: Where its authors publish it.
        sha256: Hash of the file, once known.
    """

    name: str
    architecture: str
    format: str
    source: str
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    objective: str
    data: str
    licence: str
    citation: str
    homepage: str = ""
    sha256: str = ""


@cache
def catalogue() -> dict[str, CheckpointRecord]:
    """Return every record by name.

    >>> catalogue()["mae_vit_base"].objective
    'mim'
    """
    with shipped.path("checkpoints.toml").open("rb") as file:
        tables = tomllib.load(file)
    return {name: _record(name, table) for name, table in tables.items()}


def complete(spec: CheckpointSpec, record: CheckpointRecord) -> CheckpointSpec:
    """Let a record say what shapes could not: the objective, and where it came from."""
    return replace(spec, source=record.name, objective=record.objective)


def local_file(record: CheckpointRecord) -> Path:
    """Return the file of a record that is not fetched through timm.

    Raises:
        CheckpointError: It has to be downloaded by hand, or the installation lacks it.
    """
    if record.source.startswith(SHIPPED):
        path = shipped.path("checkpoints") / record.source.removeprefix(SHIPPED)
        if path.is_file():
            return path
        raise CheckpointError(
            f"{record.name}: the installation lacks {path.name}", "reinstall attnprobe"
        )
    raise CheckpointError(
        f"{record.name} is not fetched by itself: its authors publish "
        f"{record.source.removeprefix(FILE)}",
        f"download it from {record.homepage} and give the path of the file",
    )


def _record(name: str, table: dict[str, Any]) -> CheckpointRecord:
    known = {item.name for item in fields(CheckpointRecord)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise CheckpointError(
            f"checkpoints.toml: {name} has unknown fields {', '.join(unknown)}",
            f"use: {', '.join(sorted(known))}",
        )
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return CheckpointRecord(name=name, **{**table, **lists})
