"""Reading torch's own multi-head attention, `F.multi_head_attention_forward`.

Torch shows that one function and nothing of what happens inside it, so queries and keys are
projected again here, from its arguments, by the weights that it was given.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprobe.attention.reader import Call, RawAttention
from attnprobe.attention.sdpa import additive, causal
from attnprobe.errors import CaptureError

MULTIHEAD = F.multi_head_attention_forward
_SIGNATURE = signature(MULTIHEAD)
_EXTRA_KEYS = ("bias_k", "static_k", "add_zero_attn")


def read_multihead(module: nn.Module, call: Call) -> RawAttention:
    """Return what one call attends with, queries [images, heads, queries, dim].

    Args:
        module: The module that made the call.
        call: A call of `F.multi_head_attention_forward`, which puts tokens before images.

    Raises:
        CaptureError: It is causal, or has keys that are no tokens.
    """
    bound = _SIGNATURE.bind(*call.args, **call.kwargs)
    bound.apply_defaults()
    given = bound.arguments
    extra = [name for name in _EXTRA_KEYS if given[name] is not None and given[name] is not False]
    if given["is_causal"]:
        raise causal(module)
    if given["query"].ndim != 3 or extra:
        why = f"adds keys that are no tokens ({extra[0]})" if extra else "has no axis of images"
        raise CaptureError(
            f"the attention of {type(module).__name__} {why}",
            "measure an encoder that attends among the patches of a batch of images",
        )
    heads = given["num_heads"]
    q, k = (x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for x in _projected(given))
    return RawAttention(q, k, q.shape[-1] ** -0.5, _bias(module, given, q))


def _projected(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return queries and keys, [tokens, images, channels]."""
    if given["use_separate_proj_weight"]:
        weights = given["q_proj_weight"], given["k_proj_weight"]
    else:
        weights = given["in_proj_weight"].chunk(3)[:2]
    bias = given["in_proj_bias"]
    biases = (None, None) if bias is None else bias.chunk(3)[:2]
    q, k = map(F.linear, (given["query"], given["key"]), weights, biases)
    return q, k


def _bias(module: nn.Module, given: dict[str, Any], q: Tensor) -> Tensor | None:
    """Return both masks as additive logits; a bool is true here where there is no attention."""
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (-1, given["num_heads"]))
    if padding is not None:
        padding = padding[:, None, None, :]
    shown = (~x if x is not None and x.dtype == torch.bool else x for x in (mask, padding))
    found = [bias for x in shown if (bias := additive(x, q, module)) is not None]
    return sum(found[1:], found[0]) if found else None


def images_first(module: nn.Module, x: Tensor, images: int) -> Tensor:
    """Return a block's output with the axis of images first, as torch's attention may not have it.

    Args:
        module: The attention module of the block.
        x: The output.
        images: Images in the batch.

    Raises:
        CaptureError: There are as many tokens as images, so that the axes look alike.
    """
    if getattr(module, "batch_first", True) or x.ndim != 3:
        return x
    if x.shape[0] == x.shape[1] == images > 1:
        raise CaptureError(
            f"{images} images of {images} tokens: which axis holds the images cannot be told",
            "take another batch size",
        )
    return x.transpose(0, 1) if x.shape[1] == images else x
