"""Complete a record of the catalogue: from a file that is here, or from timm's registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from attnprobe.catalogue import CheckpointRecord, records
from attnprobe.checkpoints.origins import hub, repositories
from attnprobe.errors import CheckpointError
from attnprobe.formats import formats


def completed(name: str, facts: Mapping[str, Any], *, trust: bool = False) -> CheckpointRecord:
    """Return a record whose architecture, format and preprocessing are filled in where possible.

    Args:
        name: Its name.
        facts: The fields that are given; they go before what is found.
        trust: Let pickled code in a local file run.

    Raises:
        CheckpointError: A field is wrong, or the file cannot be read.

    >>> completed("tiny", {"source": "timm:vit_tiny_patch16_224.augreg_in21k"}).mean
    (0.5, 0.5, 0.5)
    """
    record = records.record(name, dict(facts))
    _check(record)
    source = record.source
    if source.startswith(records.TIMM):
        found = _of_timm(source.removeprefix(records.TIMM)) | {"format": "timm"}
    elif source.startswith((records.HUB, records.FILE)) or "://" in source:
        found = _of_timm(record.architecture) if record.architecture else {}
        found.pop("licence", None)  # timm's weights have one, these another
    else:
        path = Path(source).expanduser().absolute()
        found, facts = _of_file(path, trust=trust), {**facts, "source": str(path)}
    return records.record(name, {**found, **facts})


def _check(record: CheckpointRecord) -> None:
    source, known = record.source, [item.name for item in formats()]
    if record.architecture and not timm.is_model(record.architecture):
        raise CheckpointError(
            f"timm has no model {record.architecture!r}", hub.near(record.architecture)
        )
    if record.format and record.format not in known:
        raise CheckpointError(
            f"there is no format {record.format!r}", f"choose one of: {', '.join(known)}"
        )
    if source.startswith(records.TIMM) and not timm.is_model(source.removeprefix(records.TIMM)):
        base = source.removeprefix(records.TIMM)
        raise CheckpointError(f"timm has no model {base!r}", hub.near(base))
    if source.startswith(records.HUB):
        repositories.parse(source)
    if source.startswith(records.SHIPPED):
        raise CheckpointError(f"{source} is not yours", "give a path, an address or timm:NAME")


def _of_timm(model: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(model, allow_unregistered=False)
    found: dict[str, Any] = {"architecture": model.partition(".")[0]}
    if config is None:
        return found
    return found | {
        "input_size": tuple(config.input_size),
        "mean": tuple(config.mean),
        "std": tuple(config.std),
        "licence": config.license or "",
    }


def _of_file(path: Path, *, trust: bool) -> dict[str, Any]:
    from attnprobe.checkpoints import load

    spec = load(path, trust=trust).spec
    named = timm.is_model(spec.architecture)
    known = {item.name for item in formats()}
    objective = spec.objective.removesuffix(records.FINE_TUNED)
    return {
        "architecture": spec.architecture if named else "",
        "format": spec.format if spec.format in known else "",
        "input_size": spec.input_size,
        "mean": spec.mean,
        "std": spec.std,
        "objective": spec.objective if objective in records.OBJECTIVES else "unknown",
        "size": path.stat().st_size if path.is_file() else 0,
        "sha256": spec.sha256 if path.is_file() else "",
    }
