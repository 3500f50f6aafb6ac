"""The plain vision transformer: timm's own names, shared by many releases."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import has

FORMATS = (
    Format(
        "timm",
        "Plain vision transformers: timm, DeiT, MAE fine-tuned, DINO backbones",
        "vit",
        has(r"^blocks\.\d+\.attn\.qkv\.weight$"),
        rank=90,
    ),
)
