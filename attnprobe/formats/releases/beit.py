"""BEiT, BEiT v2, data2vec and SimMIM's ViT, whose blocks are BEiT's."""

from attnprobe.formats.records import INCEPTION, Format
from attnprobe.formats.signs import beside, every, has

_BEIT = has(r"^blocks\.\d+\.attn\.q_bias$|relative_position_bias_table$")

FORMATS = (
    Format(
        "beit-pretrain",
        "BEiT and BEiT v2 pre-training (prediction head dropped)",
        "beit",
        every(_BEIT, has(r"^(lm_head|cls_pt_layers)\.")),
        rank=24,
        objective="mim",
        normalisation=INCEPTION,
    ),
    Format(
        "simmim-vit",
        "SimMIM pre-training of ViT (one shared table of relative positions)",
        "beit",
        every(_BEIT, has(r"^rel_pos_bias\.relative_position_bias_table$")),
        rank=25,
        objective="mim",
    ),
    Format(
        "simmim-vit-finetuned",
        "SimMIM fine-tuning of ViT (a table of relative positions a block)",
        "beit",
        every(_BEIT, beside("lr_scheduler", "max_accuracy")),
        rank=26,
    ),
    Format(
        "beit",
        "BEiT, BEiT v2, data2vec: fine-tuned, official or timm",
        "beit",
        _BEIT,
        rank=27,
        normalisation=INCEPTION,
    ),
)
