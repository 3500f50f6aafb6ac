"""A row of signs for every format of a framework: the fewest names that tell it."""

import torch

ONE = torch.ones(1)


def _under(prefix, names, *more):
    return {**{prefix + name: ONE for name in names}, **dict.fromkeys(more, ONE)}


_QUERY = "encoder.layer.0.attention.attention.query"
_VIT = (
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.cls_token",
    f"{_QUERY}.weight",
    f"{_QUERY}.bias",
    "encoder.layer.0.attention.attention.key.bias",
)
_BEIT = (*_VIT[:4], "encoder.layer.0.lambda_1")
_IJEPA = tuple(name for name in _VIT if name != "embeddings.cls_token")
_TOWER = ("embeddings.patch_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight")
_SELF = "encoder.layers.0.blocks.0.attention.self"
_SWIN = ("embeddings.patch_embeddings.projection.weight", f"{_SELF}.relative_position_bias_table")
_SWINV2 = ("embeddings.patch_embeddings.projection.weight", f"{_SELF}.logit_scale")
_DINOV3 = (
    "embeddings.patch_embeddings.weight",
    "layer.0.attention.q_proj.weight",
    "layer.0.layer_scale1.lambda1",
)
_MM = ("patch_embed.projection.weight", "layers.0.ln1.weight", "layers.0.attn.qkv.weight")
_MM_BEIT = (*_MM, "layers.0.attn.q_bias")
_W_MSA = "stages.0.blocks.0.attn.w_msa"
_MM_SWIN = ("patch_embed.projection.weight", f"{_W_MSA}.relative_position_bias_table")
_MM_SWINV2 = ("patch_embed.projection.weight", f"{_W_MSA}.logit_scale")

SIGNS = {
    "transformers-vit": _under("vit.", _VIT),
    "transformers-vit-masked": _under("vit.", _VIT, "decoder.0.weight"),
    "transformers-mae": _under("vit.", _VIT, "decoder.decoder_embed.weight"),
    "transformers-deit": _under("deit.", (*_VIT, "embeddings.distillation_token")),
    "transformers-dinov2": _under("dinov2.", (*_VIT, "encoder.layer.0.layer_scale1.lambda1")),
    "transformers-ijepa": _under("ijepa.", _IJEPA),
    "transformers-beit": _under("beit.", _BEIT),
    "transformers-beit-masked": _under("beit.", _BEIT, "lm_head.weight"),
    "transformers-data2vec": _under("data2vec_vision.", _BEIT),
    "transformers-clip": _under("vision_model.", (*_TOWER, "pre_layrnorm.weight")),
    "transformers-siglip": _under("vision_model.", _TOWER, "logit_bias"),
    "transformers-dinov3": _under("", _DINOV3),
    "transformers-swin": _under("swin.", _SWIN),
    "transformers-swin-masked": _under("swin.", _SWIN, "decoder.0.weight"),
    "transformers-swinv2": _under("swinv2.", _SWINV2),
    "transformers-swinv2-masked": _under("swinv2.", _SWINV2, "decoder.0.weight"),
    "mmpretrain-vit": {"state_dict": _under("backbone.", _MM)},
    "mmpretrain-mae": {"state_dict": _under("backbone.", _MM, "neck.decoder_blocks.0.ln1.weight")},
    "mmpretrain-moco-v3": {
        "state_dict": _under("backbone.", _MM) | _under("momentum_encoder.module.0.", _MM)
    },
    "mmpretrain-beit": {"state_dict": _under("backbone.", _MM_BEIT)},
    "mmpretrain-beit-masked": {"state_dict": _under("backbone.", _MM_BEIT, "head.cls_head.weight")},
    "mmpretrain-swin": {"state_dict": _under("backbone.", _MM_SWIN)},
    "mmpretrain-simmim-swin": {
        "state_dict": _under("backbone.", _MM_SWIN, "neck.decoder.0.weight")
    },
    "mmpretrain-swinv2": {"state_dict": _under("backbone.", _MM_SWINV2)},
}
