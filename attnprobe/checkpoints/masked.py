"""How a checkpoint's encoder saw masked images in pre-training, from what its file holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from attnprobe.checkpoints.reading.weightfiles import Opened
from attnprobe.formats.containers import named_tensors

DROP, REPLACE = "drop", "replace"
SIMMIM_CELL = 32  # pixels, of every published SimMIM checkpoint
_TOKEN = re.compile(r"(^|\.)(mask_token|masked_embed)$")
_MAE = re.compile(r"(^|\.)(decoder_blocks\.|decoder\.decoder_layers?\.|decoder_embed\.)")
_SIMMIM = re.compile(r"(^|\.)decoder\.0\.weight$")
_REST = "objective.safetensors"  # beside the encoder of a training run


@dataclass(frozen=True)
class Masked:
    """What the encoder got of a hidden patch.

    Attributes:
        how: drop (nothing: MAE) or replace (the mask token: SimMIM, BEiT, iBOT, DINOv2).
        token: The mask token, fp32 [1, 1, channels of the patch embedding], or None.
        cell: Side in pixels of the squares that were hidden as a whole; 0 for one patch.
    """

    how: str
    token: Tensor | None = None
    cell: int = 0


def of_file(opened: Opened, module: nn.Module, part: str | None = None) -> Masked | None:
    """Return how the encoder of a file was masked, or None where the file does not tell.

    Args:
        opened: The file.
        module: The encoder's module.
        part: Which encoder, of files that hold several.
    """
    tensors: Mapping[str, Tensor] = named_tensors(opened.content, part)[0]
    rest = opened.path.with_name(_REST)
    if rest.is_file() and opened.path.name != _REST:
        tensors = {**tensors, **_rest(rest)}
    if any(map(_MAE.search, tensors)):  # its mask token is the decoder's
        return Masked(DROP)
    token = _token(tensors, module)
    if token is None:
        return None
    reconstructs = any(map(_SIMMIM.search, tensors))
    return Masked(REPLACE, token, SIMMIM_CELL if reconstructs else 0)


def of_timm(source: str) -> Masked | None:
    """Return how the weights of a `timm:` source were masked, as far as its tag says it.

    >>> of_timm("timm:vit_base_patch16_224.mae").how
    'drop'
    """
    return Masked(DROP) if source.rpartition(".")[2] == "mae" else None


def _rest(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, ValueError, RuntimeError):  # it is no part of the checkpoint
        return {}


def _token(tensors: Mapping[str, Tensor], module: nn.Module) -> Tensor | None:
    """Return the mask token as wide as the patch embedding, the first one by depth of its name."""
    projection = getattr(getattr(module, "patch_embed", None), "proj", None)
    width = getattr(projection, "out_channels", 0)
    names = [n for n, x in tensors.items() if _TOKEN.search(n) and x.numel() == width]
    # of a teacher and a student, as the encoder itself is chosen, the teacher
    names.sort(key=lambda name: ("student" in name, name.count("."), name))
    return tensors[names[0]].detach().float().reshape(1, 1, -1).clone() if names else None
