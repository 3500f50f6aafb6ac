"""Reader for modules that call `F.scaled_dot_product_attention` on their own tokens.

Covers timm's ViT, DeiT, BEiT, EVA and DINO families: what arrives at the call already has
its norms, rotations and biases, so it is read there and nothing is computed twice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprobe.attention.families import variant_of
from attnprobe.attention.reader import Call, RawAttention, Reader
from attnprobe.errors import CaptureError

_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _matches(module: nn.Module) -> bool:
    heads = isinstance(getattr(module, "num_heads", None), int)
    projections = hasattr(module, "qkv") or hasattr(module, "q_proj")
    return heads and projections and hasattr(module, "fused_attn")


def _watch(module: nn.Module, func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    del module, args, kwargs
    return func is F.scaled_dot_product_attention


def _read(module: nn.Module, call: Call, inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    del inputs
    given = dict(zip(_NAMES, call.args, strict=False)) | call.kwargs
    q, k = given["query"], given["key"]
    if given.get("is_causal"):
        raise CaptureError("causal attention has no meaning over image patches", "use an encoder")
    scale = given.get("scale")
    mask = given.get("attn_mask")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if q.ndim == 4:
        return RawAttention(q, k, scale, _additive(mask, q))
    return _arranged(module, q, k, scale=scale, mask=mask)


def _arranged(
    module: nn.Module, q: Tensor, k: Tensor, *, scale: float, mask: Tensor | None
) -> RawAttention:
    """Return attention over three axes, [images x windows x heads, tokens, dim], as over four.

    Other axes only a variant's `arrange` can tell apart.
    """
    heads = getattr(module, "num_heads", getattr(module, "heads", None))
    if q.ndim == 3 and isinstance(heads, int):
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (-1, heads))
        q, k = (x.unflatten(0, (-1, heads)) for x in (q, k))
        return RawAttention(q, k, scale, _additive(mask, q))
    variant = variant_of(module)
    if mask is not None or variant is None or variant.arrange is None:
        raise CaptureError(
            f"{type(module).__name__} attends over {q.ndim} axes, {tuple(q.shape)}, not over "
            "[images x windows, heads, tokens, dim]",
            "this attention variant has no reader yet; add one in attnprobe/attention",
        )
    return RawAttention(q, k, scale, None)


def _additive(mask: Tensor | None, q: Tensor) -> Tensor | None:
    """Return an SDPA mask as additive logits with four axes."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


SDPA = Reader("sdpa", _matches, _watch, _read)
