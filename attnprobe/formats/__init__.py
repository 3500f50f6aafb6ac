"""FORMATS: how each release spells its names, as a table; pure state dict -> state dict.

A format says by which names it is recognised, which names differ from timm's, and which
tensors are not part of the encoder. The first one that matches, in order, is taken.
"""

import re
from collections.abc import Callable

from attnprobe.errors import FormatError
from attnprobe.formats import augreg, dinov2
from attnprobe.formats.containers import Weights, unwrap
from attnprobe.formats.conversion import convert
from attnprobe.formats.records import INCEPTION, Converted, Format

__all__ = ["FORMATS", "Converted", "Format", "Weights", "convert", "identify", "unwrap"]

_SWIN_OFFICIAL = ((r"^head\.(weight|bias)$", r"head.fc.\1"),)


def _has(pattern: str) -> Callable[[Weights], bool]:
    compiled = re.compile(pattern)
    return lambda weights: any(compiled.search(name) for name in weights.tensors)


def _all(*tests: Callable[[Weights], bool]) -> Callable[[Weights], bool]:
    return lambda weights: all(test(weights) for test in tests)


def _anywhere(pattern: str) -> Callable[[Weights], bool]:
    compiled = re.compile(pattern)
    return lambda weights: any(compiled.search(name) for name in weights.names)


def _beside(*keys: str) -> Callable[[Weights], bool]:
    return lambda weights: weights.beside.issuperset(keys)


_TORCHVISION = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)


def _fixed_positions(weights: Weights) -> bool:
    """Whether the class token's position is exactly zero, as sin-cos positions leave it."""
    place = weights.tensors.get("pos_embed")
    return place is not None and place.ndim == 3 and not bool(place[:, 0].any())


_RECONSTRUCTS = _anywhere(r"^decoder\.0\.weight$|\.decoder\.0\.weight$")
_SWIN = _has(r"^layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$")
_SWINV2 = _has(r"^layers\.\d+\.blocks\.\d+\.attn\.(cpb_mlp\.|logit_scale$)")
_BEIT = _has(r"^blocks\.\d+\.attn\.q_bias$|relative_position_bias_table$")

FORMATS: tuple[Format, ...] = (
    Format(
        "augreg",
        "AugReg and other JAX vision transformers (.npz)",
        "vit",
        _has(r"Transformer/encoderblock_?\d*"),
        prepare=augreg.prepare,
        normalisation=INCEPTION,
    ),
    Format(
        "torchvision",
        "torchvision's vision transformers",
        "vit",
        _has(r"^encoder\.layers\.encoder_layer_\d+\.self_attention\."),
        rename=_TORCHVISION,
    ),
    Format(
        "simmim-swinv2",
        "SimMIM pre-training of Swin V2 (encoder., decoder dropped)",
        "swinv2",
        _all(_SWINV2, _RECONSTRUCTS),
        objective="mim",
        rename=_SWIN_OFFICIAL,
    ),
    Format(
        "swinv2", "Swin Transformer V2, official or timm", "swinv2", _SWINV2, rename=_SWIN_OFFICIAL
    ),
    Format(
        "simmim-swin",
        "SimMIM pre-training of Swin (encoder., decoder dropped)",
        "swin",
        _all(_SWIN, _RECONSTRUCTS),
        objective="mim",
        rename=_SWIN_OFFICIAL,
    ),
    Format("swin", "Swin Transformer, official or timm", "swin", _SWIN, rename=_SWIN_OFFICIAL),
    Format(
        "beit-pretrain",
        "BEiT and BEiT v2 pre-training (prediction head dropped)",
        "beit",
        _all(_BEIT, _has(r"^(lm_head|cls_pt_layers)\.")),
        objective="mim",
        normalisation=INCEPTION,
    ),
    Format(
        "simmim-vit",
        "SimMIM pre-training of ViT (one shared table of relative positions)",
        "beit",
        _all(_BEIT, _has(r"^rel_pos_bias\.relative_position_bias_table$")),
        objective="mim",
    ),
    Format(
        "simmim-vit-finetuned",
        "SimMIM fine-tuning of ViT (a table of relative positions a block)",
        "beit",
        _all(_BEIT, _beside("lr_scheduler", "max_accuracy")),
    ),
    Format(
        "beit",
        "BEiT, BEiT v2, data2vec: fine-tuned, official or timm",
        "beit",
        _BEIT,
        normalisation=INCEPTION,
    ),
    Format(
        "mae",
        "MAE pre-training (decoder dropped)",
        "vit",
        _has(r"^decoder_blocks\."),
        objective="mim",
    ),
    Format(
        "moco-v3",
        "MoCo v3 pre-training (the trained encoder; momentum copy and heads dropped)",
        "vit",
        _anywhere(r"base_encoder\."),
        objective="contrastive",
    ),
    Format(
        "moco-v3-finetuned",
        "MoCo v3 after pre-training: linear probing or fine-tuning",
        "vit",
        _all(_beside("arch", "state_dict"), _fixed_positions),
    ),
    Format("ibot", "iBOT (teacher by default)", "vit", _has(r"^masked_embed$"), objective="mim"),
    Format(
        "dino",
        "DINO full file (teacher by default, projection heads dropped)",
        "vit",
        _beside("teacher", "student"),
        objective="self-distillation",
    ),
    Format(
        "dinov2",
        "DINOv2, with or without registers, official names",
        "vit",
        lambda weights: dinov2.detect(weights.tensors),
        objective="self-distillation",
        prepare=dinov2.prepare,
    ),
    Format(
        "deit-distilled",
        "DeiT with a distillation token",
        "vit",
        _has(r"^dist_token$"),
        objective="supervised",
    ),
    Format(
        "deit3",
        "DeiT III (gamma_1 and gamma_2 are layer scales)",
        "vit",
        _all(_has(r"^blocks\.\d+\.gamma_1$"), _has(r"^blocks\.\d+\.attn\.qkv\.bias$")),
        rename=((r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"),),
    ),
    Format(
        "timm",
        "Plain vision transformers: timm, DeiT, MAE fine-tuned, DINO backbones",
        "vit",
        _has(r"^blocks\.\d+\.attn\.qkv\.weight$"),
    ),
)


def identify(weights: Weights) -> Format:
    """Return the first format whose signs the encoder shows.

    Raises:
        FormatError: None of them matches.
    """
    for candidate in FORMATS:
        if candidate.detect(weights):
            return candidate
    some = ", ".join(list(weights.tensors)[:8])
    if not any("attn" in name for name in weights.tensors):
        raise FormatError(
            f"no attention in this checkpoint: its blocks hold {some}, ...",
            "attnprobe measures attention heads: give a vision transformer",
        )
    raise FormatError(
        f"no known format explains the names {some}, ...",
        "run `attnprobe list formats` for the layouts that are read",
    )
