"""Saved states of a run: whole folders, put in place by a rename, the last few kept."""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from attnprobe.errors import OutputError, ResultError
from attnprobe.training import manifest, outputs

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

FOLDER = "states"
_NAME = re.compile(r"step-(\d{8,})")
SPARE = 64 * 2**20  # bytes that stay free for logs, pictures and probes


def steps(run: Path) -> list[int]:
    """Updates of the whole saved states, ascending."""
    found = (_NAME.fullmatch(path.name) for path in (run / FOLDER).glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def path_of(run: Path, step: int) -> Path:
    """Return where the state after `step` updates lies."""
    return run / FOLDER / f"step-{step:08d}"


def size_of(module: "nn.Module", *, moments: int, averaged: bool) -> int:
    """Bytes of one state: weights, the optimiser's moments, the averaged weights."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return weights + moments * trained + (weights if averaged else 0)


def check_room(run: Path, *, needed: int, what: str) -> None:
    """Refuse to go on when the disk cannot take what is about to be written.

    Raises:
        OutputError: There is less room than `needed` bytes and a little to spare.
    """
    free = shutil.disk_usage(run).free
    if free < needed + SPARE:
        raise OutputError(
            f"{what} needs {_gib(needed + SPARE)} of disk; {run} has {_gib(free)} free",
            "free some disk, lower --keep, or choose another --out; nothing saved was lost",
        )


def save(accelerator: "Accelerator", run: Path, step: int, *, keep: int) -> None:
    """Write the state after `step` updates and drop the oldest beyond `keep`; all processes call.

    Raises:
        OutputError: It could not be written; the states before it are as they were.
    """
    final = path_of(run, step)
    staging = final.with_name(f".{final.name}.part")
    if accelerator.is_main_process:
        clean(run)
        _make(staging)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(staging), safe_serialization=True)
    except Exception as error:  # torch and safetensors turn a full disk into errors of their own
        full = getattr(error, "errno", None) == errno.ENOSPC or "write" in str(error)
        full = full or os.strerror(errno.ENOSPC) in str(error)
        shutil.rmtree(staging, ignore_errors=True)
        raise OutputError(
            f"cannot save the state of update {step}: {'the disk is full' if full else error}",
            "free some disk and repeat the command with --resume; earlier states are whole",
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if final.exists():  # a finished run taken up again: the same state once more
            shutil.rmtree(staging)
        else:
            staging.rename(final)
        for old in steps(run)[:-keep]:
            shutil.rmtree(path_of(run, old))
    accelerator.wait_for_everyone()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"cannot make {folder}: {error.strerror}",
            f"make room for a folder {FOLDER}, then repeat the command with --resume",
        ) from error


def clean(run: Path) -> None:
    """Remove what an interrupted save left behind."""
    for left in (run / FOLDER).glob(".*.part"):
        shutil.rmtree(left, ignore_errors=True)


def load(accelerator: "Accelerator", run: Path) -> int | None:
    """Load the newest state; returns its update, or None if none was ever saved.

    Raises:
        ResultError: It is damaged, of another model, or all of them were removed.
    """
    found = steps(run)
    if not found:
        _check_never_saved(run)
        return None
    path = path_of(run, found[-1])
    try:
        accelerator.load_state(str(path))
    except Exception as error:  # torch, safetensors and pickle raise whatever they meet
        raise ResultError(
            f"cannot resume from {path}: {_first_line(error)}",
            "remove that folder to resume from an earlier state, or start again elsewhere",
        ) from error
    accelerator.step = 0  # counts parts of a batch, which another --accumulate cuts anew
    return found[-1]


def _check_never_saved(run: Path) -> None:
    """Refuse to begin a run again over weights that it saved together with a state."""
    done = manifest.written(run).get("step")
    if done and (run / outputs.ENCODER).exists():
        raise ResultError(
            f"{run / FOLDER} holds none of the states that were saved up to update {done}",
            "put them back, or train into another --out; the weights in there are whole",
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
