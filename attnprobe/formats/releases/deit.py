"""DeiT with a distillation token, and DeiT III with its layer scales."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import every, has

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
        rename=((r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"),),
    ),
)
