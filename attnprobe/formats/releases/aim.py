"""AIM and AIM v2 in the names of Apple's code; AIM v2 in timm's names too.

AIM's positions are sines and cosines of the place, which its files leave out.
"""

import math
from typing import TYPE_CHECKING, Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import OPENAI, Format
from attnprobe.formats.signs import either, every, has

if TYPE_CHECKING:
    from torch import Tensor

_SIDE = 224
_COMMON = (
    (r"^preprocessor\.patchifier\.", "patch_embed."),
    (r"^preprocessor\.pos_embed$", "pos_embed"),
    (r"^preprocessor\.cls_token$", "cls_token"),
    (r"^trunk\.post_trunk_norm\.", "norm."),
    (r"^trunk\.", ""),
    (r"\.norm_([12])\.", r".norm\1."),
)
_GATES = ((r"\.mlp\.fc1\.", ".mlp.fc1_g."), (r"\.mlp\.fc3\.", ".mlp.fc1_x."))
_DROP = (
    (r"^head\.", "attentive probe on the frozen encoder"),
    (r"\.attn\.attn_mask$", "mask of autoregressive pre-training, unused on whole images"),
)
_EMBEDDING = "preprocessor.patchifier.proj.weight"
_APPLE = has(r"^preprocessor\.patchifier\.proj\.weight$")


def _customs(weights: Weights) -> dict[str, Any]:
    said = f"input size {_SIDE} x {_SIDE}: the custom of AIM, whose positions are computed"
    return {"head_width": 128, "said": () if _places(weights.tensors) else (said,)}


def _customs_v2(_: Weights) -> dict[str, Any]:
    return {"head_width": 128, "norm_eps": 1e-5}


def _places(tensors: "dict[str, Tensor]") -> bool:
    return "preprocessor.pos_embed" in tensors


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Add the positions that AIM computes in its forward pass."""
    kernel = tensors.get(_EMBEDDING)
    if kernel is None or kernel.ndim != 4 or kernel.shape[0] % 4 or _places(tensors):
        return tensors, {}
    rows, cols = (max(1, _SIDE // side) for side in kernel.shape[-2:])
    name = "preprocessor.pos_embed"
    place = _sines(rows, cols, kernel.shape[0])
    return {**tensors, name: place}, {name: "(sines and cosines of the place, not in the file)"}


def _sines(rows: int, cols: int, width: int) -> "Tensor":
    """Return positions [1, rows * cols, width]: half of a place's row, half of its column."""
    import torch  # the list of formats must not cost an import of torch

    rates = torch.exp(-math.log(10000.0) * torch.arange(width // 4) / (width // 4))
    row = torch.arange(rows).repeat_interleave(cols)[:, None] * rates
    col = torch.arange(cols).repeat(rows)[:, None] * rates
    return torch.cat([col.sin(), col.cos(), row.sin(), row.cos()], 1)[None]


FORMATS = (
    Format(
        "aimv2",
        "AIM v2: official or timm",
        "vit",
        either(
            every(_APPLE, has(r"\.mlp\.fc3\.weight$")),
            every(has(r"^patch_embed\.norm\.weight$"), has(r"\.mlp\.fc1_g\.weight$")),
        ),
        rank=15,
        objective="predictive",
        rename=(*_COMMON, *_GATES),
        drop=_DROP[1:],
        customs=_customs_v2,
        normalisation=OPENAI,
    ),
    Format(
        "aim",
        "AIM: the official names (probe dropped)",
        "vit",
        _APPLE,
        rank=16,
        objective="predictive",
        rename=_COMMON,
        drop=_DROP,
        prepare=_prepare,
        customs=_customs,
    ),
)
