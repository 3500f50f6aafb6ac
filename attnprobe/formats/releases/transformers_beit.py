"""The transformers library's BEiT and Data2VecVision, whose keys have no bias."""

from functools import partial

from attnprobe.formats.merging import LAYERS, eps_of, merge_qkv
from attnprobe.formats.records import INCEPTION, Format
from attnprobe.formats.signs import anywhere, configured, either, every, has, no

_RENAME = (
    *LAYERS,
    (r"^encoder\.relative_position_bias\.", "rel_pos_bias."),
    (r"\.attention\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.attention\.(query|value)\.bias$", r".attn.\1_bias"),
    (r"\.attn\.query_bias$", ".attn.q_bias"),
    (r"\.attn\.value_bias$", ".attn.v_bias"),
    (r"\.lambda_([12])$", r".gamma_\1"),
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


_customs = partial(eps_of, eps=1e-12)


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
