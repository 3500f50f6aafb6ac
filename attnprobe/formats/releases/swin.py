"""Swin and Swin V2: official, timm's, and pre-trained by SimMIM."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import anywhere, every, has

_RENAME = ((r"^head\.(weight|bias)$", r"head.fc.\1"),)
_SWIN = has(r"^layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$")
_SWINV2 = has(r"^layers\.\d+\.blocks\.\d+\.attn\.(cpb_mlp\.|logit_scale$)")
_RECONSTRUCTS = anywhere(r"^decoder\.0\.weight$|\.decoder\.0\.weight$")

FORMATS = (
    Format(
        "simmim-swinv2",
        "SimMIM pre-training of Swin V2 (encoder., decoder dropped)",
        "swinv2",
        every(_SWINV2, _RECONSTRUCTS),
        rank=20,
        objective="mim",
        rename=_RENAME,
    ),
    Format(
        "swinv2",
        "Swin Transformer V2, official or timm",
        "swinv2",
        _SWINV2,
        rank=21,
        rename=_RENAME,
    ),
    Format(
        "simmim-swin",
        "SimMIM pre-training of Swin (encoder., decoder dropped)",
        "swin",
        every(_SWIN, _RECONSTRUCTS),
        rank=22,
        objective="mim",
        rename=_RENAME,
    ),
    Format("swin", "Swin Transformer, official or timm", "swin", _SWIN, rank=23, rename=_RENAME),
)
