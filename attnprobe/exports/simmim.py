"""SimMIM's own format: `model` with `encoder.`, `decoder.0.` and the buffers it saves."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnprobe.errors import AttnprobeError
from attnprobe.exports import BLOCK, Export, check

if TYPE_CHECKING:
    from torch import Tensor

# the official code saves these as buffers; timm rebuilds them and saves none
_BUFFERS = re.compile(r"(^|\.)(relative_position_index|relative_coords_table|attn_mask)$")
_VIT = rf"(cls_token|pos_embed|patch_embed\.proj\.\w+|blocks\.\d+\.({BLOCK}|attn\.[qv]_bias"
_VIT += r"|attn\.relative_position_bias_table|gamma_[12])|rel_pos_bias\.\w+|(fc_)?norm\.\w+)"
_SWIN = rf"(patch_embed\.(proj|norm)\.\w+|layers\.\d+\.(blocks\.\d+\.({BLOCK}|attn\.[qv]_bias"
_SWIN += r"|attn\.(relative_position_bias_table|logit_scale|cpb_mlp\.[02]\.\w+))"
_SWIN += r"|downsample\.(norm|reduction)\.\w+)|norm\.\w+)"
_NAMES = {"Beit": _VIT, "SwinTransformer": _SWIN, "SwinTransformerV2": _SWIN}


def write(
    encoder: "dict[str, Tensor]", rest: "dict[str, Tensor]", card: Mapping[str, Any]
) -> dict[str, Any]:
    """Return {"model": ...} that the official SimMIM module loads strictly.

    Raises:
        AttnprobeError: The official code has no such backbone.
    """
    family, buffers = _built(card)
    if family not in _NAMES:
        raise AttnprobeError(
            f"the official SimMIM code has no {family}: its ViT is BEiT's (biases of queries and "
            "values, relative positions), its others are Swin and Swin V2",
            "keep the timm checkpoint of the run",
        )
    check(encoder, re.compile(_NAMES[family]).fullmatch, "simmim")
    named = {_earlier(name): tensor for name, tensor in {**encoder, **buffers}.items()}
    model = {f"encoder.{name}": tensor for name, tensor in named.items()}
    model["encoder.mask_token"] = rest["mask_token"]
    return {"model": model | {name: rest[name] for name in ("decoder.0.weight", "decoder.0.bias")}}


def _built(card: Mapping[str, Any]) -> "tuple[str, dict[str, Tensor]]":
    """Build the backbone of a card for its class and its buffers."""
    import timm

    from attnprobe.checkpoints.building.creating import unwritten

    name, arguments = card.get("architecture", ""), card.get("model_args", {})
    try:
        with unwritten():
            module = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0})
    except Exception as error:  # timm and the model classes raise whatever they meet
        raise AttnprobeError(
            f"timm cannot build {name!r} with {arguments} ({error})",
            "export the folder as the training run wrote it",
        ) from error
    found = {key: value for key, value in module.named_buffers() if _BUFFERS.search(key)}
    return type(module).__name__, found


def _earlier(name: str) -> str:
    """Move patch merging from the start of a stage to the end of the one before."""
    return re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda match: f"layers.{int(match[1]) - 1}.downsample.",
        name,
    )


EXPORT = Export(
    name="simmim",
    description="SimMIM (microsoft/SimMIM, Swin V2: microsoft/Swin-Transformer): model",
    objectives=("simmim",),
    sign="decoder.0.weight",
    write=write,
)
