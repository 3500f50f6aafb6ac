"""The transformers library's BEiT and Data2VecVision, whose keys have no bias."""

from attnprobe.formats.containers import Weights
from attnprobe.formats.merging import eps_of, merge_qkv
from attnprobe.formats.records import INCEPTION, Format
from attnprobe.formats.signs import anywhere, configured, either, every, has, no

_RENAME = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^encoder\.relative_position_bias\.", "rel_pos_bias."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.attention\.(query|value)\.bias$", r".attn.\1_bias"),
    (r"\.attn\.query_bias$", ".attn.q_bias"),
    (r"\.attn\.value_bias$", ".attn.v_bias"),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"^layernorm\.", "norm."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^classifier\.", "head."),
)
_DROP = ((r"^embeddings\.mask_token$", "mask token, unused on whole images"),)
_NAMES = r"^encoder\.layer\.\d+\.attention\.attention\."
_BEIT = either(
    has(rf"{_NAMES}relative_position_bias\."),
    has(r"^encoder\.relative_position_bias\."),
    has(r"^encoder\.layer\.\d+\.lambda_1$"),
    every(has(rf"{_NAMES}query\.bias$"), no(has(rf"{_NAMES}key\.bias$"))),
)


def _customs(weights: Weights) -> dict[str, object]:
    return eps_of(weights, 1e-12)


FORMATS = (
    Format(
        "transformers-data2vec",
        "transformers: Data2VecVision",
        "beit",
        every(_BEIT, either(anywhere(r"(^|\.)data2vec_vision\."), configured("data2vec-vision"))),
        rank=13,
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
        normalisation=INCEPTION,
    ),
    Format(
        "transformers-beit-masked",
        "transformers: BEiT pre-training (prediction head dropped)",
        "beit",
        every(_BEIT, anywhere(r"(^|\.)lm_head\.")),
        rank=13,
        objective="mim",
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
        normalisation=INCEPTION,
    ),
    Format(
        "transformers-beit",
        "transformers: BEiT, its encoder or fine-tuned",
        "beit",
        _BEIT,
        rank=14,
        rename=_RENAME,
        drop=_DROP,
        prepare=merge_qkv,
        customs=_customs,
        normalisation=INCEPTION,
    ),
)
