"""EVA, EVA-02 and the image towers of EVA-CLIP, official or timm; timm's rotary ViTs."""

from typing import TYPE_CHECKING, Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import INCEPTION, OPENAI, Format
from attnprobe.formats.signs import anywhere, either, every, has, no

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    (r"\.attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_DROP = ((r"(^|\.)rope\.freqs_(cos|sin)$", "buffer, compared with the table of the geometry"),)


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Give biases of queries and values to their projections, where those are apart."""
    origin = {}
    for name in tensors:
        stem, _, last = name.rpartition(".")
        apart = last in ("q_bias", "v_bias") and f"{stem}.q_proj.weight" in tensors
        origin[f"{stem}.{last[0]}_proj.bias" if apart else name] = name
    return {new: tensors[old] for new, old in origin.items()}, origin


def _gated(weights: Weights) -> bool:
    """Whether blocks are EVA-02's: no bias of keys, and a gated MLP."""
    biased = any(name.endswith((".attn.q_bias", ".attn.q_proj.bias")) for name in weights.tensors)
    return biased and any(
        name.endswith((".mlp.w12.weight", ".mlp.w1.weight", ".mlp.fc1_g.weight"))
        or (name.endswith(".mlp.fc1.weight") and _packed(weights, name))
        for name in weights.tensors
    )


def _packed(weights: Weights, name: str) -> bool:
    before, after = weights.tensors[name], weights.tensors.get(name.replace(".fc1.", ".fc2."))
    if after is None or not before.ndim == after.ndim == 2:
        return False
    return before.shape[0] == 2 * after.shape[1]


def _customs(_: Weights) -> dict[str, Any]:
    return {"rotary": {"rope_type": "cat", "ref_feat_shape": (16, 16)}}


def _customs_gap(_: Weights) -> dict[str, Any]:
    return {**_customs(_), "input_side": 256}


def _customs_vit(_: Weights) -> dict[str, Any]:
    rotary = {"rope_type": "cat", "rope_grid_indexing": "xy", "rope_temperature": 100.0}
    return {"rotary": rotary}


_EVA02 = either(has(r"(^|\.)rope\.freqs_cos$"), _gated)
_EVA = every(
    has(r"^blocks\.\d+\.attn\.q_bias$"),
    has(r"^pos_embed$"),
    no(has(r"relative_position_bias_table$|\.gamma_1$")),
)
_PREDICTS = has(r"^(lm_head\.|mask_token$)")
_WITH_TEXT = anywhere(r"(^|\.)logit_scale$|^visual\.(?!trunk\.)")
_ROTARY = every(
    has(r"^blocks\.\d+\.gamma_1$"), no(has(r"^pos_embed$|relative_position_bias_table$"))
)

FORMATS = (
    Format(
        "eva02-clip",
        "EVA-02-CLIP: the image tower (text dropped)",
        "eva",
        every(_EVA02, either(_WITH_TEXT, has(r"attn\.(inner_attn_ln|norm)\.weight$"))),
        rank=18,
        objective="language-image",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs,
        normalisation=OPENAI,
    ),
    Format(
        "eva02-pretrain",
        "EVA-02 pre-training (prediction head dropped)",
        "eva",
        every(_EVA02, _PREDICTS),
        rank=19,
        objective="mim",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs,
        normalisation=OPENAI,
    ),
    Format(
        "eva02",
        "EVA-02, official or timm",
        "eva",
        _EVA02,
        rank=20,
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs,
        normalisation=OPENAI,
    ),
    Format(
        "eva-clip",
        "EVA-CLIP: the image tower (text dropped)",
        "eva",
        every(_EVA, _WITH_TEXT),
        rank=21,
        objective="language-image",
        normalisation=OPENAI,
    ),
    Format(
        "eva-pretrain",
        "EVA pre-training (prediction head dropped)",
        "eva",
        every(_EVA, _PREDICTS),
        rank=22,
        objective="mim",
        normalisation=OPENAI,
    ),
    Format("eva", "EVA, official or timm", "eva", _EVA, rank=23, normalisation=OPENAI),
    Format(
        "vit-rope-gap",
        "timm's ViTs with rotary positions and registers, without a class token",
        "eva",
        every(_ROTARY, has(r"^reg_token$"), no(has(r"^cls_token$"))),
        rank=24,
        objective="supervised",
        customs=_customs_gap,
        normalisation=INCEPTION,
    ),
    Format(
        "vit-rope",
        "RoPE-ViT with axial rotary positions, timm's names",
        "eva",
        every(
            _ROTARY,
            has(r"^cls_token$"),
            has(r"attn\.qkv\.bias$"),
            no(has(r"^(reg_token|rope\.freqs)$")),
        ),
        rank=24,
        objective="supervised",
        customs=_customs_vit,
    ),
)
