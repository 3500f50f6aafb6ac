"""The image towers of the transformers library's CLIP and SigLIP; text is dropped."""

from typing import TYPE_CHECKING

from attnprobe.formats.containers import Weights
from attnprobe.formats.merging import merge_qkv
from attnprobe.formats.records import INCEPTION, OPENAI, Format
from attnprobe.formats.signs import every, has, no

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
_DROP = (
    (r"^head\.", "attention pooling after the encoder"),
    (r"position_ids$", "buffer, rebuilt from the geometry"),
)
_TOWER = every(
    has(r"^embeddings\.patch_embedding\.weight$"),
    has(r"^encoder\.layers\.\d+\.self_attn\.q_proj\.weight$"),
)
_CLIP = has(r"^pre_layrnorm\.weight$")


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Merge queries, keys and values, and give tokens and positions timm's leading axes."""
    out, origin = merge_qkv(tensors)
    for name, axes in (
        ("embeddings.class_embedding", 3),
        ("embeddings.position_embedding.weight", 3),
    ):
        if name in out:
            while out[name].ndim < axes:
                out[name] = out[name][None]
    return out, origin


def _customs_clip(weights: Weights) -> dict[str, object]:
    said = "quick GELU and LayerNorm eps 1e-5: as in OpenAI's CLIP, no config.json beside the file"
    return {"norm_eps": 1e-5, "act": "quick_gelu", "said": () if weights.config else (said,)}


def _customs_siglip(weights: Weights) -> dict[str, object]:
    said = "tanh GELU and LayerNorm eps 1e-6: as in SigLIP, no config.json beside the file"
    return {"norm_eps": 1e-6, "act": "gelu_tanh", "said": () if weights.config else (said,)}


FORMATS = (
    Format(
        "transformers-clip",
        "transformers: image tower of CLIP",
        "vit",
        every(_TOWER, _CLIP),
        rank=12,
        objective="language-image",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs_clip,
        normalisation=OPENAI,
    ),
    Format(
        "transformers-siglip",
        "transformers: image tower of SigLIP",
        "vit",
        every(_TOWER, no(_CLIP)),
        rank=13,
        objective="language-image",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs_siglip,
        normalisation=INCEPTION,
    ),
)
