"""DINO and iBOT: a student and its averaged teacher in one file."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import beside, has

FORMATS = (
    Format(
        "ibot",
        "iBOT (teacher by default)",
        "vit",
        has(r"^masked_embed$"),
        rank=30,
        objective="mim",
    ),
    Format(
        "dino",
        "DINO full file (teacher by default, projection heads dropped)",
        "vit",
        beside("teacher", "student"),
        rank=31,
        objective="self-distillation",
    ),
)
