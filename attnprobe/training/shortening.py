"""Leaving out the last blocks of a checkpoint's encoder before it is fine-tuned."""

from typing import Any

from torch import nn

from attnprobe.errors import AttnprobeError
from attnprobe.training.sections import ModelSection


def check(section: ModelSection) -> None:
    """Refuse to leave out blocks where there is no checkpoint to leave them out of.

    Raises:
        AttnprobeError: Blocks are to be left out, but `init` is empty.
    """
    if section.drop_last and not section.init:
        raise AttnprobeError(
            f"drop_last is {section.drop_last}, but there is no checkpoint whose blocks it means",
            "give --init CKPT, or build a shallower model by --model-arg depth=N",
        )


def depth_left(backbone: nn.Module, section: ModelSection) -> int:
    """Return how many blocks a whole backbone keeps.

    Raises:
        AttnprobeError: It is no single stack of blocks, or none of them would be left.
    """
    blocks: Any = getattr(backbone, "blocks", None)
    if blocks is None:
        raise AttnprobeError(
            f"{section.model} is no single stack of blocks, so none of them are its last",
            "set --drop-last to 0, or take a ViT",
        )
    if section.drop_last >= len(blocks):
        raise AttnprobeError(
            f"{section.model} has {len(blocks)} blocks, so {section.drop_last} cannot be left out",
            f"set --drop-last to {len(blocks) - 1} or less",
        )
    return len(blocks) - section.drop_last
