"""MAE: the encoder is a plain ViT, the decoder is dropped."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import every, has

FORMATS = (
    Format(
        "mae",
        "MAE pre-training (decoder dropped)",
        "vit",
        has(r"^decoder_blocks\."),
        rank=28,
        objective="mim",
    ),
    Format(
        "mae-linear-probe",
        "MAE's linear probing: batch normalisation and a linear layer as head",
        "vit",
        every(has(r"^blocks\.\d+\.attn\.qkv\.weight$"), has(r"^head\.0\.running_mean$")),
        rank=28,
        objective="mim",
        drop=((r"^head\.[01]\.", "linear probe behind batch normalisation"),),
    ),
)
