"""torchvision's vision transformers: packed in-projections, encoder_layer_i blocks."""

from attnprobe.formats.records import Format
from attnprobe.formats.signs import has

_RENAME = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.(head\.)?(weight|bias)$", r"head.\2"),
    (r"^heads\.pre_logits\.", "pre_logits."),
)
FORMATS = (
    Format(
        "torchvision",
        "torchvision's vision transformers",
        "vit",
        has(r"^encoder\.layers\.encoder_layer_\d+\.self_attention\."),
        rank=10,
        rename=_RENAME,
    ),
)
