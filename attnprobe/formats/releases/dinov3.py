"""DINOv3's official names and timm's: registers, rotary positions, layer scales."""

from typing import TYPE_CHECKING, Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import Format
from attnprobe.formats.signs import either, every, has, no

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_DROP = (
    (r"^rope_embed\.periods$", "buffer, taken over as the periods of the rotation"),
    (r"\.attn\.qkv\.bias_mask$", "buffer: keys have no bias"),
    (r"^local_cls_norm\.", "norm of local crops, unused on whole images"),
)
_BIAS = ".attn.qkv.bias"


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Split biases whose key third the official code masks away."""
    out: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        third = tensor.shape[0] // 3 if tensor.ndim == 1 else 0
        if not name.endswith(_BIAS) or tensor.shape != (3 * third,):
            out[name] = tensor
            continue
        stem = name[: -len("qkv.bias")]
        for part, place in (("q", 0), ("v", 2)):
            out[f"{stem}{part}_bias"] = tensor[place * third : (place + 1) * third]
            origin[f"{stem}{part}_bias"] = name
    return out, origin


def _customs(_: Weights) -> dict[str, Any]:
    rotary = {"rope_type": "dinov3", "rope_temperature": 100.0, "rope_rotate_half": True}
    heads = {(1280, 32): 20, (4096, 40): 32}
    return {"rotary": rotary, "norm_eps": 1e-5, "input_side": 256, "usual_heads": heads}


_OFFICIAL = has(r"^(storage_tokens|rope_embed\.periods)$")
_TIMM = every(
    has(r"^reg_token$"),
    has(r"^cls_token$"),
    has(r"^blocks\.\d+\.gamma_1$"),
    has(r"^blocks\.\d+\.attn\.qkv\.weight$"),
    no(has(r"^pos_embed$")),
)

FORMATS = (
    Format(
        "dinov3-unmasked",
        "DINOv3's code, trained with a bias of keys",
        "eva",
        every(_OFFICIAL, has(r"attn\.qkv\.bias$"), no(has(r"bias_mask$"))),
        rank=16,
        objective="self-distillation",
        rename=_RENAME,
        drop=_DROP,
        customs=_customs,
    ),
    Format(
        "dinov3",
        "DINOv3, official or timm",
        "eva",
        either(_OFFICIAL, _TIMM),
        rank=17,
        objective="self-distillation",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs,
    ),
)
