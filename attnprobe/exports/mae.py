"""MAE's own format: `model` with encoder and decoder side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnprobe.errors import AttnprobeError
from attnprobe.exports import PLAIN_VIT, Export, check

if TYPE_CHECKING:
    from torch import Tensor


def write(
    encoder: "dict[str, Tensor]", rest: "dict[str, Tensor]", card: Mapping[str, Any]
) -> dict[str, Any]:
    """Return {"model": ...} that the official MaskedAutoencoderViT loads strictly.

    Raises:
        AttnprobeError: The official code has no such backbone.
    """
    del card
    check(encoder, PLAIN_VIT.fullmatch, "mae")
    places = encoder["pos_embed"].shape[1]
    if "cls_token" not in encoder or places != rest["decoder_pos_embed"].shape[1]:
        raise AttnprobeError(
            "the official MAE code has a class token with a position of its own, and this "
            f"backbone has {places} positions and {'a' if 'cls_token' in encoder else 'no'} "
            "class token",
            "keep the timm checkpoint of the run",
        )
    return {"model": {**encoder, **rest}}


EXPORT = Export(
    name="mae",
    description="MAE (facebookresearch/mae): model, with the decoder",
    objectives=("mae",),
    sign="decoder_embed.weight",
    write=write,
)
