"""MMPretrain's names: `ln1`, `ffn.layers`, `stages`; its files wrap the encoder in `backbone.`.

Its Swin merges patches with an unfold, which puts the four neighbours of a channel next to
each other, where the official code and timm put the channels of a neighbour.
"""

import re
from typing import TYPE_CHECKING

from attnprobe.formats.records import Format
from attnprobe.formats.signs import anywhere, every, has

if TYPE_CHECKING:
    from torch import Tensor

_COMMON = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^(?:layers|blocks)\.(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
    (r"\.ffn\.(?:layers\.0\.0|w12)\.", ".mlp.fc1."),
    (r"\.ffn\.(?:layers\.1|w3)\.", ".mlp.fc2."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
    (r"^pre_norm\.", "norm_pre."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"^head\.(?:fc|layers\.head)\.", "head."),
    (r"^head\.layers\.head_dist\.", "head_dist."),
)
_SWIN_NAMES = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.", "layers."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"^norm\d*\.", "norm."),
)
_VIT = every(has(r"^patch_embed\.projection\.weight$"), has(r"^layers\.\d+\.ln1\.weight$"))
_BEIT = every(_VIT, has(r"relative_position_bias_table$|^layers\.\d+\.attn\.q_bias$"))
_WINDOWS = r"^stages\.\d+\.blocks\.\d+\.attn\.w_msa\."
_SWIN = has(rf"{_WINDOWS}relative_position_bias_table$")
_SWINV2 = has(rf"{_WINDOWS}logit_scale$")
_MERGING = re.compile(r"^stages\.(\d+)\.(downsample\..*)$")


def _swin(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Move patch merging to the start of the next stage and undo the unfold's order."""
    origin = {_later(name): name for name in tensors}
    out = {
        new: _by_neighbour(tensors[old]) if ".downsample." in new else tensors[old]
        for new, old in origin.items()
    }
    return out, origin


def _later(name: str) -> str:
    match = _MERGING.match(name)
    return f"stages.{int(match[1]) + 1}.{match[2]}" if match else name


def _by_neighbour(tensor: "Tensor") -> "Tensor":
    """Order the last axis by neighbour, then channel: (0, 0), (1, 0), (0, 1), (1, 1)."""
    if tensor.ndim == 0 or tensor.shape[-1] % 4:
        return tensor
    apart = tensor.unflatten(-1, (-1, 4))  # [..., channel, neighbour]
    return apart[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)


def _swinv2(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Undo the unfold's order where merging reads the neighbours; norms come after it."""
    out = {
        name: _by_neighbour(tensor) if name.endswith(".downsample.reduction.weight") else tensor
        for name, tensor in tensors.items()
    }
    return out, {name: name for name in tensors}


FORMATS = (
    Format(
        "mmpretrain-beit-masked",
        "MMPretrain: BEiT pre-training (prediction head dropped)",
        "beit",
        every(_BEIT, anywhere(r"(^|\.)head\.cls_head\.")),
        rank=12,
        objective="mim",
        rename=_COMMON,
    ),
    Format(
        "mmpretrain-beit",
        "MMPretrain: BEiT",
        "beit",
        _BEIT,
        rank=13,
        rename=_COMMON,
    ),
    Format(
        "mmpretrain-mae",
        "MMPretrain: MAE pre-training (decoder dropped)",
        "vit",
        every(_VIT, anywhere(r"(^|\.)neck\.decoder_blocks\.")),
        rank=13,
        objective="mim",
        rename=_COMMON,
    ),
    Format(
        "mmpretrain-moco-v3",
        "MMPretrain: MoCo v3 pre-training (the trained encoder, or --part momentum_encoder)",
        "vit",
        every(_VIT, anywhere(r"(^|\.)momentum_encoder\.")),
        rank=13,
        objective="contrastive",
        rename=_COMMON,
    ),
    Format(
        "mmpretrain-vit",
        "MMPretrain: ViT, DeiT, DINOv2, MAE and CLIP after pre-training",
        "vit",
        _VIT,
        rank=14,
        rename=_COMMON,
    ),
    Format(
        "mmpretrain-simmim-swin",
        "MMPretrain: SimMIM pre-training of Swin (decoder dropped)",
        "swin",
        every(_SWIN, anywhere(r"(^|\.)neck\.decoder\.0\.weight$")),
        rank=12,
        objective="mim",
        rename=_SWIN_NAMES,
        prepare=_swin,
    ),
    Format(
        "mmpretrain-swin",
        "MMPretrain: Swin",
        "swin",
        _SWIN,
        rank=13,
        rename=_SWIN_NAMES,
        prepare=_swin,
    ),
    Format(
        "mmpretrain-swinv2",
        "MMPretrain: Swin V2",
        "swinv2",
        _SWINV2,
        rank=12,
        rename=_SWIN_NAMES,
        prepare=_swinv2,
    ),
)
