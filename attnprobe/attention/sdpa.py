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
    return heads and projections and bool(getattr(module, "fused_attn", False))


def _watch(module: nn.Module, func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    del module, args, kwargs
    return func is F.scaled_dot_product_attention


def _read(module: nn.Module, call: Call, inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    del inputs
    given = dict(zip(_NAMES, call.args, strict=False)) | call.kwargs
    q, k = given["query"], given["key"]
    if given.get("is_causal"):
        raise causal(module)
    scale = given.get("scale")
    mask = given.get("attn_mask")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if q.ndim == 4:
        return RawAttention(q, k, scale, additive(mask, q, module))
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
        return RawAttention(q, k, scale, additive(mask, q, module))
    variant = variant_of(module)
    if mask is not None or variant is None or variant.arrange is None:
        raise CaptureError(
            f"{type(module).__name__} attends over {q.ndim} axes, {tuple(q.shape)}, not over "
            "[images x windows, heads, tokens, dim]",
            "this attention variant has no reader yet; add one in attnprobe/attention",
        )
    return RawAttention(q, k, scale, None)


def causal(module: nn.Module) -> CaptureError:
    """Return what to raise at attention that looks back only."""
    return CaptureError(
        f"the attention of {type(module).__name__} is causal, as of a text model, which has no "
        "meaning over image patches",
        "give the vision encoder alone, such as model.visual or model.vision_model",
    )


def additive(mask: Tensor | None, q: Tensor, module: nn.Module) -> Tensor | None:
    """Return a mask as additive logits with four axes.

    Args:
        mask: Additive, or bool and true where there is attention.
        q: The queries, whose type it gets.
        module: The attention module.

    Raises:
        CaptureError: It is the mask of a causal model.
    """
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if _is_causal(mask):
        raise causal(module)
    return mask


def _is_causal(mask: Tensor) -> bool:
    """Whether one mask for all images and heads hides all that comes after a token."""
    images, heads, queries, keys = mask.shape
    if images > 1 or heads > 1 or queries != keys or keys == 1:
        return False
    after = mask.new_ones(keys, keys, dtype=torch.bool).triu(1)
    lowest = torch.finfo(mask.dtype).min
    return bool((mask[0, 0] <= lowest)[after].all())


SDPA = Reader("sdpa", _matches, _watch, _read)
