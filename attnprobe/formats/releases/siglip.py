"""SigLIP and CLIP towers that are timm's: with a pooling head, or inside OpenCLIP's files."""

from typing import Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import INCEPTION, OPENAI, Format
from attnprobe.formats.signs import every, has

_VIT = has(r"^blocks\.\d+\.attn\.qkv\.weight$")


def _customs(_: Weights) -> dict[str, Any]:
    return {"usual_heads": {(1536, 40): 16}}


FORMATS = (
    Format(
        "siglip",
        "SigLIP, timm's names (alone or inside OpenCLIP's)",
        "vit",
        every(_VIT, has(r"^attn_pool\.latent$")),
        rank=40,
        objective="language-image",
        customs=_customs,
        normalisation=INCEPTION,
    ),
    Format(
        "timm-clip",
        "CLIP's image tower, timm's names",
        "vit",
        every(_VIT, has(r"^norm_pre\.weight$")),
        rank=41,
        objective="language-image",
        normalisation=OPENAI,
    ),
)
