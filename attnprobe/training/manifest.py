"""The facts of a run, for manifest.json, its model card and its page."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.analysis import device_name, versions_used
from attnprobe.errors import OutputError
from attnprobe.training import outputs

if TYPE_CHECKING:
    from accelerate import Accelerator

    from attnprobe.training.assembly import Run

SCHEMA = 1
RESTS_ON = ("attnprobe", "torch", "timm", "accelerate", "torchvision", "numpy", "pillow")


def manifest(run: "Run", *, status: str, command: str, created: str) -> dict[str, Any]:
    """Return the facts of a run as it stands."""
    progress, config = run.progress, run.config
    images = progress.step * config.loop.batch_size
    return {
        "schema": SCHEMA,
        "kind": "training",
        "objective": config.objective,
        "objective_kind": run.objective.kind,
        "title": run.objective.title,
        "name": run.spec.name,
        "recipe": config.recipe,
        "command": command,
        "model": _model(run),
        "data": _data(run),
        "versions": dict(versions_used(*RESTS_ON)),
        "device": device_name(run.accelerator.device),
        "precision": precision_of(run.accelerator),
        "processes": run.accelerator.num_processes,
        "batch_size": config.loop.batch_size,
        "steps": run.steps,
        "steps_per_epoch": run.steps_per_epoch,
        "epochs": config.loop.epochs,
        "step": progress.step,
        "status": status,
        "weights": "exponential moving average of the weights" if run.ema else "as trained",
        "created": created,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(images / progress.seconds, 2) if progress.seconds else None,
        "skipped": [run.pictures.name(index) for index in sorted(progress.broken)],
        "licence": config.save.licence,
        "best": "kNN accuracy" if run.validation else "mean loss of an epoch",
    }


def precision_of(accelerator: "Accelerator") -> str:
    """Return the precision of the forward pass by its option's name."""
    named = accelerator.mixed_precision
    return "fp32" if named == "no" else named


def _model(run: "Run") -> dict[str, Any]:
    encoder = run.objective.encoder(run.plain)
    return {
        "architecture": run.spec.architecture,
        "model_args": run.spec.model_args,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "classes": run.framing.classes,
        "init": run.config.model.init,
        "drop_last": run.config.model.drop_last,
    }


def _data(run: "Run") -> dict[str, Any]:
    pictures = run.pictures
    return {
        "label": pictures.label,
        "images": len(pictures),
        "classes": len(pictures.classes),
        "sha256": pictures.sha256,
        "hashed": pictures.hashed,
        "names": list(pictures.classes[:1000]),
        "val": run.validation.label if run.validation else "",
        "mean": list(run.spec.mean),
        "std": list(run.spec.std),
    }


def check_images(run: "Run") -> None:
    """Refuse to go on with other images, or in another precision, than the run began with.

    Raises:
        OutputError: The images' hash or the precision differs from the manifest's.
    """
    held = written(run.out)
    try:
        before = str(held["data"]["sha256"])
    except (KeyError, TypeError):
        return  # nothing was trained before the manifest was written
    now = precision_of(run.accelerator)
    if held.get("precision", now) != now:
        raise OutputError(
            f"{run.out} was begun in {held['precision']}, and this machine would take {now}",
            f"give --precision {held['precision']}, or train into another --out",
        )
    if before != run.pictures.sha256:
        raise OutputError(
            f"{run.pictures.label} is not what {run.out} was begun with: its hash is "
            f"{run.pictures.sha256[:12]}, not {before[:12]}",
            "give the images as they were, or train into another --out",
        )


def first_command(path: Path) -> str:
    """Return the command that began the run in a folder, or nothing."""
    return str(written(path).get("command", ""))


def begun(path: Path) -> str:
    """Return when the run in a folder was begun, or now."""
    created = written(path).get("created")
    return str(created) if created else datetime.now(UTC).isoformat(timespec="seconds")


def written(path: Path) -> dict[str, Any]:
    """Return the manifest in a run's folder; nothing of one that is absent or damaged."""
    try:
        held = json.loads((path / outputs.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
