"""BEiT-3's image branch in timm's names: norms inside attention and MLP."""

from typing import Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import INCEPTION, Format
from attnprobe.formats.signs import every, has


def _customs(_: Weights) -> dict[str, Any]:
    return {"norm_eps": 1e-5}


FORMATS = (
    Format(
        "beit3",
        "BEiT-3: the image branch, timm's names",
        "vit",
        every(
            has(r"^blocks\.\d+\.attn\.qkv\.weight$"),
            has(r"^blocks\.\d+\.attn\.norm\.weight$"),
            has(r"^blocks\.\d+\.mlp\.norm\.weight$"),
        ),
        rank=39,
        customs=_customs,
        normalisation=INCEPTION,
    ),
)
