"""The transformers library's Swin and Swin V2: patch merging ends a stage there."""

import re
from typing import TYPE_CHECKING

from attnprobe.formats.merging import merge_qkv
from attnprobe.formats.records import Format
from attnprobe.formats.signs import anywhere, every, has, no

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^embeddings\.position_embeddings$", "absolute_pos_embed"),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.self\.qkv\.", ".attn.qkv."),
    (r"\.attention\.self\.query\.bias$", ".attn.q_bias"),
    (r"\.attention\.self\.value\.bias$", ".attn.v_bias"),
    (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
)
_DROP = ((r"^embeddings\.mask_token$", "mask token, unused on whole images"),)
_BLOCKS = r"^encoder\.layers\.\d+\.blocks\.\d+\.attention\.self\."
_SWIN = has(rf"{_BLOCKS}relative_position_bias_table$")
_SWINV2 = has(rf"{_BLOCKS}logit_scale$")
_RECONSTRUCTS = anywhere(r"(^|\.)decoder\.0\.weight$")
_MERGING = re.compile(r"^(encoder\.layers\.)(\d+)(\.downsample\..*)$")


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Merge queries, keys and values, and put patch merging at the start of the next stage."""
    out, origin = merge_qkv(tensors)
    renamed = {_later(name): name for name in out}
    return (
        {new: out[old] for new, old in renamed.items()},
        {new: origin[old] for new, old in renamed.items()},
    )


def _later(name: str) -> str:
    match = _MERGING.match(name)
    return f"{match[1]}{int(match[2]) + 1}{match[3]}" if match else name


def _format(name: str, description: str, family: str, rank: int, masked: bool) -> Format:
    sign = _SWINV2 if family == "swinv2" else _SWIN
    return Format(
        name,
        description,
        family,
        every(sign, _RECONSTRUCTS if masked else no(_RECONSTRUCTS)),
        rank=rank,
        objective="mim" if masked else "unknown",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
    )


FORMATS = (
    _format("transformers-swin", "transformers: Swin", "swin", 13, masked=False),
    _format("transformers-swinv2", "transformers: Swin V2", "swinv2", 12, masked=False),
    _format(
        "transformers-swin-masked",
        "transformers: Swin pre-trained on masked images (decoder dropped)",
        "swin",
        13,
        masked=True,
    ),
    _format(
        "transformers-swinv2-masked",
        "transformers: Swin V2 pre-trained on masked images (decoder dropped)",
        "swinv2",
        12,
        masked=True,
    ),
)
