"""MAE: the encoder is a plain ViT, the decoder is dropped."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import has

FORMATS = (
    Format(
        "mae",
        "MAE pre-training (decoder dropped)",
        "vit",
        has(r"^decoder_blocks\."),
        rank=28,
        objective="mim",
    ),
)
