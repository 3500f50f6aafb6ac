"""Reader for timm's Swin and SwinV2 window attention, which never calls SDPA.

Of Swin the output of the module's own qkv projection is kept as it passes by; from there it is
q . k / sqrt(d) plus a table. Of SwinV2 the unit queries and keys are kept where they meet; it is
their cosine times a clamped per-head scale plus a bounded table (Liu et al. 2022, eqs. 2-4).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn
from torch.nn import functional as F

from attnprobe.attention.reader import Call, RawAttention, Reader

_KINDS = (swin_transformer.WindowAttention, swin_transformer_v2.WindowAttention)
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)
MAX_LOGIT_SCALE = math.log(1.0 / 0.01)


def _matches(module: nn.Module) -> bool:
    return isinstance(module, _KINDS)


def _watch(module: Any, func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    if isinstance(module, swin_transformer_v2.WindowAttention):
        # keys arrive as a transposed view; the product with the values takes them as they are
        return func in _PRODUCTS and args[1].stride(-2) == 1
    if func is not F.linear:
        return False
    weight = args[1] if len(args) > 1 else kwargs.get("weight")
    return weight is module.qkv.weight


def _read(module: Any, call: Call, inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    if isinstance(module, swin_transformer_v2.WindowAttention):
        q, k, scale, bias = _cosine(module, *call.args)
    else:
        batch, tokens, _ = call.output.shape
        qkv = call.output.reshape(batch, tokens, 3, module.num_heads, -1)
        q, k, _ = qkv.permute(2, 0, 3, 1, 4)
        scale, bias = module.scale, module._get_rel_pos_bias()
    positional, named = inputs
    mask = positional[1] if len(positional) > 1 else named.get("mask")
    return RawAttention(q, k, scale, _masked(bias, mask))


def _cosine(module: Any, q: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, float, Tensor]:
    """Return unit queries times their head's scale, unit keys, 1, and the bounded table.

    Args:
        module: The attention module.
        q: Unit queries, [batch, heads, area, dim].
        keys: Unit keys, transposed, [batch, heads, dim, area].
    """
    scale = module.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()  # [heads, 1, 1]
    area = math.prod(module.window_size)
    table = module.cpb_mlp(module.relative_coords_table).view(-1, module.num_heads)
    table = table[module.relative_position_index.view(-1)].view(area, area, -1)
    bias = 16 * torch.sigmoid(table.permute(2, 0, 1)).unsqueeze(0)  # [1, heads, area, area]
    return q * scale, keys.transpose(-2, -1), 1.0, bias


def _masked(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Add the shift mask [windows, area, area]; its -100 means "no weight" and becomes -inf."""
    if mask is None:
        return bias
    return bias.masked_fill((mask != 0).unsqueeze(1), float("-inf"))  # [windows, heads, area, area]


WINDOW = Reader("window", _matches, _watch, _read)
