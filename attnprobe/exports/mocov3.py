"""MoCo v3's own format: `state_dict` of the module inside DistributedDataParallel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnprobe.exports import PLAIN_VIT, Export, check

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = (
    ("projector.", "base_encoder.head."),
    ("momentum_projector.", "momentum_encoder.head."),
    ("momentum_encoder.", "momentum_encoder."),
    ("predictor.", "predictor."),
)


def write(
    encoder: "dict[str, Tensor]", rest: "dict[str, Tensor]", card: Mapping[str, Any]
) -> dict[str, Any]:
    """Return {"arch": ..., "state_dict": ...} that the official MoCo_ViT loads strictly.

    Raises:
        AttnprobeError: The official code has no such backbone.
    """
    check(encoder, PLAIN_VIT.fullmatch, "mocov3")
    named = {f"module.base_encoder.{name}": tensor for name, tensor in encoder.items()}
    for ours, theirs in _PARTS:
        named |= {
            f"module.{theirs}{name.removeprefix(ours)}": tensor
            for name, tensor in rest.items()
            if name.startswith(ours)
        }
    return {"arch": card.get("architecture", ""), "state_dict": named}


EXPORT = Export(
    name="mocov3",
    description="MoCo v3 (facebookresearch/moco-v3): state_dict of the distributed module",
    objectives=("mocov3",),
    sign="predictor.0.weight",
    write=write,
)
