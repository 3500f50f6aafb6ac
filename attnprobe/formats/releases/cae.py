"""CAE: BEiT's blocks with fixed positions and no tables; an encoder among four networks."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import anywhere, every, has

FORMATS = (
    Format(
        "cae",
        "CAE pre-training (regressor, decoder and alignment encoder dropped)",
        "beit",
        every(has(r"^blocks\.\d+\.attn\.q_bias$"), anywhere(r"(^|\.)regress[eo]r\.")),
        rank=20,
        objective="mim",
    ),
)
