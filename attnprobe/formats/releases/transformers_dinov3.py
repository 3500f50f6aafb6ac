"""The transformers library's DINOv3: rotary positions, keys without a bias."""

from typing import TYPE_CHECKING, Any

from attnprobe.errors import FormatError
from attnprobe.formats.containers import Weights
from attnprobe.formats.merging import eps_of, merge_qkv
from attnprobe.formats.records import Format
from attnprobe.formats.signs import every, has

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^(?:model\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.([qv])_proj\.bias$", r".attn.\1_bias"),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
_DROP = ((r"^embeddings\.mask_token$", "mask token, unused on whole images"),)


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Merge queries, keys and values, and tell a gated MLP's second input from a plain one's."""
    out, origin = merge_qkv(tensors)
    if not any(".mlp.gate_proj." in name for name in out):
        return out, origin
    told = {name.replace(".mlp.up_proj.", ".mlp.fc1_x."): name for name in out}
    return (
        {new: out[old] for new, old in told.items()},
        {new: origin[old] for new, old in told.items()},
    )


def _customs(weights: Weights) -> dict[str, Any]:
    act = weights.config.get("hidden_act", "silu")
    if weights.config.get("use_gated_mlp") is True and act not in ("silu", "swish"):
        raise FormatError(
            f"hidden_act {str(act)[:60]!r} of a gated MLP (config.json): timm's is SiLU",
            "only published DINOv3 models are read",
        )
    base: Any = weights.config.get("rope_theta")
    stated = isinstance(base, int | float) and 1 < base < 1e9
    rotary = {
        "rope_type": "dinov3",
        "rope_temperature": float(base) if stated else 100.0,
        "rope_rotate_half": True,
    }
    return {**eps_of(weights, 1e-5), "rotary": rotary, "input_side": 224}


FORMATS = (
    Format(
        "transformers-dinov3",
        "transformers: DINOv3 ViT",
        "eva",
        every(
            has(r"^embeddings\.patch_embeddings\.weight$"),
            has(r"^(model\.)?layer\.\d+\.attention\.q_proj\.weight$"),
            has(r"^(model\.)?layer\.\d+\.layer_scale1\.lambda1$"),
        ),
        rank=12,
        objective="self-distillation",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs,
    ),
)
