"""DINOv2's official names: registers without a place, chunked blocks, packed SwiGLU."""

import re
from typing import TYPE_CHECKING

from attnprobe.formats.records import Format

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")
_SWIGLU = {"w12": "fc1", "w3": "fc2"}


def _detect(tensors: "dict[str, Tensor]") -> bool:
    """Return whether the names are DINOv2's own, not timm's rendering of them."""
    layer_scale = any(name.endswith("ls1.gamma") for name in tensors)
    chunked = any(_CHUNK.match(name) for name in tensors)
    swiglu = any(name.endswith("mlp.w12.weight") for name in tensors)
    return (
        "register_tokens" in tensors
        or swiglu
        or (layer_scale and ("mask_token" in tensors or chunked))
    )


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Rename to timm's names; fold the class token's position into it beside registers."""
    origin = {_timm_name(name): name for name in tensors}
    out = {new: tensors[old] for new, old in origin.items()}
    if "reg_token" in out and "cls_token" in out and "pos_embed" in out:
        place = out["pos_embed"]  # [1, 1 + patches, width]
        out["cls_token"] = out["cls_token"] + place[:, :1]
        out["pos_embed"] = place[:, 1:]
        origin["cls_token"] = "cls_token + pos_embed[0]"
        origin["pos_embed"] = "pos_embed[1:]"
    return out, origin


def _timm_name(name: str) -> str:
    name = _CHUNK.sub(r"blocks.\1.", name)
    for old, new in _SWIGLU.items():
        name = re.sub(rf"\.mlp\.{old}\.", f".mlp.{new}.", name)
    return "reg_token" if name == "register_tokens" else name


FORMATS = (
    Format(
        "dinov2",
        "DINOv2, with or without registers, official names",
        "vit",
        lambda weights: _detect(weights.tensors),
        rank=32,
        objective="self-distillation",
        prepare=_prepare,
    ),
)
