"""DINO and iBOT: a student and its averaged teacher in one file."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import beside, either, has

FORMATS = (
    Format(
        "ibot",
        "iBOT (teacher by default, or --part student)",
        "vit",
        either(has(r"^masked_embed$"), beside("ibot_loss")),
        rank=30,
        objective="mim",
    ),
    Format(
        "dino",
        "DINO full file (teacher by default, or --part student)",
        "vit",
        beside("teacher", "student"),
        rank=31,
        objective="self-distillation",
    ),
)
