"""The transformers library's ViT, DeiT, MAE, I-JEPA and DINOv2.

Queries, keys and values are apart, LayerNorm's eps is that of the configuration (1e-12 in
ViT), and the layers have names of their own.
"""

from functools import partial
from typing import TYPE_CHECKING

from attnprobe.formats.merging import LAYERS, eps_of, merge_qkv
from attnprobe.formats.records import INCEPTION, Format
from attnprobe.formats.signs import anywhere, configured, either, every, has, no

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    *LAYERS,
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^(?:cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)
_DROP = (
    (r"^embeddings\.mask_token$", "mask token, unused on whole images"),
    (r"^pooler\.", "pooling layer after the encoder"),
)
_LONE_HEAD = (r"^classifier\.", "head on the class token alone, beside a distillation token")
_ATTENTION = has(r"^encoder\.layer\.\d+\.attention\.attention\.query\.weight$")
_SCALED = has(r"^encoder\.layer\.\d+\.layer_scale1\.lambda1$")


def _with_class_position(
    tensors: "dict[str, Tensor]",
) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Fold the class token's position into it where registers follow, which have none."""
    out, origin = merge_qkv(tensors)
    place, token = "embeddings.position_embeddings", "embeddings.cls_token"
    whole = out.get(place)
    if whole is not None and whole.ndim == 3 and "embeddings.register_tokens" in out:
        if token in out:
            out[token] = out[token] + whole[:, :1]
            origin[token] = f"{token} + {place}[0]"
        out[place] = whole[:, 1:]
        origin[place] = f"{place}[1:]"
    return out, origin


_customs = partial(eps_of, eps=1e-12)


_customs_dinov2 = partial(eps_of, eps=1e-6)


FORMATS = (
    Format(
        "transformers-mae",
        "transformers: ViTMAE pre-training (decoder dropped)",
        "vit",
        every(_ATTENTION, either(anywhere(r"(^|\.)decoder\.decoder_"), configured("vit_mae"))),
        rank=12,
        objective="mim",
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
    ),
    Format(
        "transformers-deit",
        "transformers: DeiT with a distillation token",
        "vit",
        every(_ATTENTION, has(r"^embeddings\.distillation_token$")),
        rank=12,
        objective="supervised",
        rename=_RENAME,
        drop=(*_DROP, _LONE_HEAD),
        prepare=merge_qkv,
        customs=_customs,
    ),
    Format(
        "transformers-dinov2",
        "transformers: DINOv2, with or without registers",
        "vit",
        every(_ATTENTION, _SCALED),
        rank=12,
        objective="self-distillation",
        rename=_RENAME,
        drop=_DROP,
        prepare=_with_class_position,
        customs=_customs_dinov2,
    ),
    Format(
        "transformers-ijepa",
        "transformers: I-JEPA",
        "vit",
        every(_ATTENTION, no(has(r"^embeddings\.cls_token$"))),
        rank=15,
        objective="predictive",
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
    ),
    Format(
        "transformers-vit-masked",
        "transformers: ViT pre-trained on masked images (decoder dropped)",
        "vit",
        every(_ATTENTION, anywhere(r"(^|\.)decoder\.0\.weight$")),
        rank=15,
        objective="mim",
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
        normalisation=INCEPTION,
    ),
    Format(
        "transformers-vit",
        "transformers: ViT, DeiT without distillation, DINO",
        "vit",
        _ATTENTION,
        rank=16,
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
        normalisation=INCEPTION,
    ),
)
