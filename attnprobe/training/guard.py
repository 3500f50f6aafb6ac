"""Stop a run whose loss is no number or runs away, and keep the batch that did it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnprobe.errors import AttnprobeError, ImagesError
from attnprobe.training import outputs
from attnprobe.training.progress import FACTOR, WINDOW, Progress

if TYPE_CHECKING:
    from attnprobe.training.assembly import Run

FOLDER = "diverged"
MOST_BROKEN = 0.5  # share of the images


class DivergedError(AttnprobeError):
    """The loss is not a finite number any more, or grew far beyond where it began."""


def check_broken(run: "Run") -> None:
    """Stop a run most of whose images cannot be read: it would learn a few by heart.

    Raises:
        ImagesError: This process met more broken images than its share of half of them.
    """
    met, share = len(run.progress.broken), len(run.pictures) / run.accelerator.num_processes
    if met > MOST_BROKEN * share:
        raise ImagesError(
            f"{met} of about {share:.0f} images of {run.pictures.label} could not be read",
            "check the files; the last saved state is whole",
        )


def note_broken(progress: Progress, batch: dict[str, Tensor]) -> None:
    """Remember which images of a batch could not be read and were replaced."""
    if bool(batch["broken"].any()):
        progress.broken |= set(batch["index"][batch["broken"].bool()].tolist())


def check(run: "Run", losses: list[float]) -> None:
    """Look at the losses of the last updates.

    Args:
        run: The run, after these updates.
        losses: One loss an update, the last one newest.

    Raises:
        DivergedError: One is no number, or their average ran away; the batch is in
            `diverged/`.
    """
    first = run.progress.step - len(losses)
    for offset, loss in enumerate(losses):
        if not math.isfinite(loss):
            _stop(run, first + offset, f"the loss of update {first + offset} is {loss}")
    if run.progress.diverging():
        told = f"over the last {WINDOW} updates the loss is more than {FACTOR:g} times its first"
        _stop(run, run.progress.step - 1, told)


def _stop(run: "Run", step: int, told: str) -> None:
    path = run.out / FOLDER / f"update-{step:08d}-process-{run.accelerator.process_index}.pt"
    keep_batch(run, step, path)
    raise DivergedError(
        f"{told}; the batch of update {step} is in {path.parent}",
        "look at the batch (torch.load), then lower --lr, set --clip-grad, lengthen the "
        "warm-up, or use --precision fp32, in a run with another --out (--init takes weights)",
    )


def keep_batch(run: "Run", step: int, path: Path) -> None:
    """Write this process's part of an update's batch, drawn again: it depends on nothing else."""
    import io

    from attnprobe.training.engine import micro_batches

    parts = list(micro_batches(run, start=step, stop=step + 1, workers=0))
    held: dict[str, Any] = {
        name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]
    }
    held["names"] = [run.pictures.name(int(index)) for index in held["index"]]
    file = io.BytesIO()
    torch.save({"update": step, **held}, file)
    outputs.put(path, file.getvalue())
