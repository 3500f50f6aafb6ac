"""Write a training run as the official codes save theirs: one file a format, each one `EXPORT`.

What was trained here can then be fine-tuned with the official code, without any conversion.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe import plugins
from attnprobe.errors import AttnprobeError, CheckpointError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

ENCODER = "checkpoint.safetensors"
REST = "objective.safetensors"
BLOCK = r"(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias)"
# what encoders of the official MAE and MoCo v3 codes hold
PLAIN_VIT = re.compile(
    rf"(cls_token|pos_embed|patch_embed\.proj\.\w+|blocks\.\d+\.{BLOCK}|norm\.\w+)"
)


@dataclass(frozen=True)
class Export:
    """How an official code saves a pre-training checkpoint.

    Attributes:
        name: Public name: the file's name.
        description: One line for `attnprobe list exports`.
        objectives: Names of the objectives it holds.
        sign: Tensor beside the encoder that every such objective has.
        write: (encoder's tensors under timm's names, the objective's other tensors, the
            checkpoint's card) -> what the official code saves: mappings of tensors.
    """

    name: str
    description: str
    objectives: tuple[str, ...]
    sign: str
    write: Callable[[dict[str, "Tensor"], dict[str, "Tensor"], Mapping[str, Any]], dict[str, Any]]


def names() -> tuple[str, ...]:
    """Names of all formats that can be written."""
    return plugins.names(__name__)


def load(name: str) -> Export:
    """Return a format.

    Raises:
        AttnprobeError: There is none of that name.
    """
    return plugins.load(__name__, name, "EXPORT")


def export(run: Path, out: Path, layout: str | None = None, *, overwrite: bool = False) -> Path:
    """Write a training run in an official format; return the file.

    Args:
        run: Folder of a training run.
        out: File to write, such as simmim.pth.
        layout: Name of a format; by the run's objective if not given.
        overwrite: Whether an existing file is replaced.

    Raises:
        OutputError: The file exists or cannot be written.
        CheckpointError: The run has no weights, or damaged ones.
        AttnprobeError: The format does not hold this objective or this backbone.
    """
    run, out = Path(run), Path(out)
    if os.path.exists(out) and not overwrite:  # noqa: PTH110 - unlike pathlib's it never raises
        raise OutputError(f"{out} exists", "give another file, or --overwrite")
    encoder, card = _read(run / ENCODER)
    rest, other = _read(run / REST)
    if other.get("epoch") != card.get("epoch"):
        raise CheckpointError(
            f"{ENCODER} and {REST} of {run} are of epochs {card.get('epoch')} and "
            f"{other.get('epoch')}: the run was killed between them",
            "let the training go on with --resume, which writes both again",
        )
    chosen = load(layout) if layout is not None else _choose(rest, run)
    if chosen.sign not in rest:
        raise AttnprobeError(
            f"format {chosen.name} holds {' and '.join(chosen.objectives)}, and {run} has no "
            f"{chosen.sign}, which that objective has",
            "leave --format out: the run's objective decides",
        )
    content = chosen.write(encoder, rest, card)
    if "epoch" in card:
        content = {**content, "epoch": card["epoch"]}
    _save(content, out)
    return out


def _read(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    from attnprobe.checkpoints.reading import weightfiles

    if not path.is_file():
        raise CheckpointError(
            f"no {path.name} in {path.parent}",
            "give the folder of a training run that has saved its weights",
        )
    opened = weightfiles.read(path)
    return dict(opened.content), opened.metadata


def _choose(rest: Mapping[str, "Tensor"], run: Path) -> Export:
    for name in names():
        candidate = load(name)
        if candidate.sign in rest:
            return candidate
    held = ", ".join(objective for name in names() for objective in load(name).objectives)
    raise AttnprobeError(
        f"no official format holds the objective of {run}",
        f"export runs of {held}; {ENCODER} is a timm checkpoint as it is",
    )


def _save(content: dict[str, Any], out: Path) -> None:
    """Write under a temporary name, then rename."""
    import torch

    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, partial)
        partial.replace(out)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):  # not made: a name too long, a file in place of a folder
            partial.unlink()
        raise OutputError(
            f"cannot write {out}: {error}", "check the folder, its permissions and its free space"
        ) from error


def check(tensors: Mapping[str, Any], holds: Callable[[str], object], layout: str) -> None:
    """Refuse tensors that a format has no place for.

    Raises:
        AttnprobeError: It names the first of them.
    """
    left = [name for name in tensors if not holds(name)]
    if left:
        raise AttnprobeError(
            f"format {layout} has no place for {left[0]} ({len(left)} such tensors)",
            "the official code has no such backbone: keep the timm checkpoint of the run",
        )
