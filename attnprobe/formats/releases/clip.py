"""CLIP in the names of OpenAI's code, which OpenCLIP kept: only the image tower is read.

OpenAI's files hold three numbers about the input beside the weights; their MLPs use quick GELU.
OpenCLIP's are trained with exact GELU unless a model's name says quickgelu.
"""

from typing import TYPE_CHECKING, Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import OPENAI, Format
from attnprobe.formats.signs import anywhere, every, has

if TYPE_CHECKING:
    from torch import Tensor

_RENAME = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.gamma$", r".ls\1.gamma"),
    (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_DROP = (
    (r"^proj$", "projection to the space shared with text"),
    (r"^attn_pool(_contrastive)?\.", "pooling head of the captioner"),
    (r"^ln_post_contrastive\.", "pooling head of the captioner"),
)
_AXES = {"class_embedding": 3, "positional_embedding": 3}
_TOWER = has(r"^transformer\.resblocks\.\d+\.attn\.in_proj_weight$")


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Give token and positions the leading axes of timm's."""
    out = dict(tensors)
    for name, axes in _AXES.items():
        if name in out:
            out[name] = out[name].reshape(*(1,) * (axes - out[name].ndim), *out[name].shape)
    return out, {}


def _customs_openai(_: Weights) -> dict[str, Any]:
    return {"norm_eps": 1e-5, "act": "quick_gelu"}


def _customs_open(_: Weights) -> dict[str, Any]:
    return {"norm_eps": 1e-5}


FORMATS = (
    Format(
        "clip",
        "OpenAI's CLIP: the image tower (text dropped)",
        "vit",
        every(_TOWER, anywhere(r"(^|\.)input_resolution$")),
        rank=14,
        objective="language-image",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs_openai,
        normalisation=OPENAI,
    ),
    Format(
        "open-clip",
        "OpenCLIP and other image towers in CLIP's names (text dropped)",
        "vit",
        _TOWER,
        rank=15,
        objective="language-image",
        rename=_RENAME,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs_open,
        normalisation=OPENAI,
    ),
)
