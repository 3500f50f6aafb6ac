"""The plain vision transformers of the transformers library."""

from typing import Any

import torch
from torch import nn

from attnprobe.attention.placing import around, embedded, unknown
from attnprobe.attention.reader import RawAttention
from attnprobe.attention.strides import convolved, counted, owner, pixels
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid

# prefix tokens in the order in which all of them are put before the patches, detection tokens
# by `_detection_first`
_PREFIX = {
    "cls_token": "cls",
    "class_embedding": "cls",
    "distillation_token": "dist",
    "register_tokens": "register",
    "detection_tokens": "detection",
}
_ATTENTION = (
    "modeling_aimv2.Aimv2Attention",
    "modeling_altclip.AltCLIPAttention",
    "modeling_beit.BeitAttention",
    "modeling_blip.BlipAttention",
    "modeling_blip_2.Blip2Attention",
    "modeling_chinese_clip.ChineseCLIPVisionAttention",
    "modeling_clip.CLIPAttention",
    "modeling_clipseg.CLIPSegAttention",
    "modeling_data2vec_vision.Data2VecVisionSdpaSelfAttention",
    "modeling_data2vec_vision.Data2VecVisionSelfAttention",
    "modeling_deit.DeiTAttention",
    "modeling_dinov2.Dinov2Attention",
    "modeling_dinov2_with_registers.Dinov2WithRegistersAttention",
    "modeling_dinov3_vit.DINOv3ViTAttention",
    "modeling_dpt.DPTSelfAttention",
    "modeling_flava.FlavaSelfAttention",
    "modeling_git.GitVisionAttention",
    "modeling_ijepa.IJepaAttention",
    "modeling_instructblip.InstructBlipAttention",
    "modeling_internvl.InternVLVisionAttention",
    "modeling_janus.JanusVisionAttention",
    "modeling_kosmos2.Kosmos2VisionAttention",
    "modeling_metaclip_2.MetaClip2Attention",
    "modeling_mlcd.MLCDAttention",
    "modeling_owlv2.Owlv2Attention",
    "modeling_owlvit.OwlViTAttention",
    "modeling_pixio.PixioAttention",
    "modeling_sapiens2.Sapiens2Attention",
    "modeling_siglip.SiglipAttention",
    "modeling_tipsv2.Tipsv2VisionAttention",
    "modeling_vit.ViTAttention",
    "modeling_vit_mae.ViTMAEAttention",
    "modeling_vit_msn.ViTMSNAttention",
)


def _plain(at: At) -> TokenGrid:
    """Place tokens by the embeddings of the tower that the layer is in."""
    found = (getattr(part, "embeddings", None) for _, part in around(at))
    embeddings = next((x for x in found if x is not None), None)
    if embeddings is None:
        raise unknown(at, f"{at.keys} tokens without embeddings of patches")
    convolutions = [part for part in embeddings.modules() if isinstance(part, nn.Conv2d)]
    return embedded(at, convolutions[0] if len(convolutions) == 1 else None, _prefix(embeddings))


def _padded(at: At) -> TokenGrid:
    """Place the patches of a convolution that pads the image."""
    tower = owner(at, "modeling_vitpose_backbone.VitPoseBackbone")
    return counted(at, convolved(pixels(at), tower.embeddings.patch_embeddings.projection))


def _detection_first(model: nn.Module, module: nn.Module, raw: RawAttention) -> RawAttention:
    """Put detection tokens, which come last, behind the class token."""
    del module
    embeddings: Any = next(x for x in model.modules() if hasattr(x, "detection_tokens"))
    tokens, count = raw.k.shape[2], embeddings.detection_tokens.shape[1]
    order = torch.arange(tokens, device=raw.k.device)
    order = torch.cat([order[:1], order[-count:], order[1:-count]])
    bias = None if raw.bias is None else raw.bias[..., order, :][..., order]
    return raw._replace(q=raw.q[:, :, order], k=raw.k[:, :, order], bias=bias)


def _prefix(embeddings: Any) -> list[str]:
    names: list[str] = []
    for attribute, name in _PREFIX.items():
        tokens = getattr(embeddings, attribute, None)
        count = 0 if tokens is None else tokens.numel() // tokens.shape[-1]
        single = name in ("cls", "dist") and count == 1
        names += [name] if single else [f"{name}{index + 1}" for index in range(count)]
    return names


VARIANTS = (
    *(Variant(kind, place=_plain) for kind in _ATTENTION),
    Variant(
        "modeling_siglip.SiglipMultiheadAttentionPoolingHead",
        left_out="pools all tokens by one query of its own",
    ),
    Variant(
        "modeling_aimv2.Aimv2AttentionPoolingHead",
        left_out="pools all tokens by one query of its own",
    ),
    Variant("modeling_vitpose_backbone.VitPoseBackboneSelfAttention", place=_padded),
    Variant("modeling_siglip2.Siglip2Attention", refused="is given patches instead of images"),
    Variant("modeling_yolos.YolosSelfAttention", place=_plain, order=_detection_first),
)
