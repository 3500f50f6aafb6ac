"""Reader for modules that call `F.scaled_dot_product_attention` on their own tokens.

Covers timm's ViT, DeiT, BEiT, EVA and DINO families: what arrives at the call already has
its norms, rotations and biases, so it is read there and nothing is computed twice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    del module, inputs
    given = dict(zip(_NAMES, call.args, strict=False)) | call.kwargs
    q, k = given["query"], given["key"]
    if given.get("is_causal"):
        raise CaptureError("causal attention has no meaning over image patches", "use an encoder")
    scale = given.get("scale")
    bias = _additive(given.get("attn_mask"), q)
    return RawAttention(q, k, q.shape[-1] ** -0.5 if scale is None else float(scale), bias)


def _additive(mask: Tensor | None, q: Tensor) -> Tensor | None:
    """Return an SDPA mask as additive logits with four axes."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


SDPA = Reader("sdpa", _matches, _watch, _read)
