"""timm's own vision transformers with relative positions."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import has

FORMATS = (
    Format(
        "vit-relpos",
        "timm's ViTs with relative positions (vit_relpos_*)",
        "relpos",
        has(r"^(blocks\.\d+\.attn\.rel_pos|shared_rel_pos)\."),
        rank=19,
        objective="supervised",
    ),
)
