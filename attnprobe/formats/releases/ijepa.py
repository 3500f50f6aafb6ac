"""I-JEPA: an encoder, its averaged copy and a predictor in one file; no class token."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import beside

FORMATS = (
    Format(
        "ijepa",
        "I-JEPA (the averaged target_encoder by default, or --part encoder)",
        "vit",
        beside("target_encoder", "predictor"),
        rank=31,
        objective="predictive",
    ),
)
