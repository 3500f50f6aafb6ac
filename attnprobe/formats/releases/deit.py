"""DeiT with a distillation token, and DeiT III with its layer scales."""

from typing import Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import Format
from attnprobe.formats.signs import every, has


def _customs(_: Weights) -> dict[str, Any]:
    said = "DeiT III: timm's vit_*_rope_ape models have the same names (--arch for those)"
    return {"said": (said,)}


FORMATS = (
    Format(
        "deit-distilled",
        "DeiT with a distillation token",
        "vit",
        has(r"^dist_token$"),
        rank=33,
        objective="supervised",
    ),
    Format(
        "deit3",
        "DeiT III (gamma_1 and gamma_2 are layer scales)",
        "vit",
        every(has(r"^blocks\.\d+\.gamma_1$"), has(r"^blocks\.\d+\.attn\.qkv\.bias$")),
        rank=34,
        customs=_customs,
        rename=((r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"),),
    ),
)
