"""ConViT (d'Ascoli et al. 2021): a gate in each head between attention by content and by place.

What weighs the values is the gated mean of two softmaxes, itself a distribution.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from attnprobe.attention.placing import by_count
from attnprobe.attention.reader import Call, RawAttention
from attnprobe.attention.variant import At, Variant
from attnprobe.attention.weighted import from_weights
from attnprobe.errors import CaptureError
from attnprobe.types import TokenGrid


def _gated(module: nn.Module, calls: Sequence[Call]) -> RawAttention:
    if len(calls) != 2:
        raise CaptureError(
            f"{type(module).__name__} made {len(calls)} softmaxes, not one of content and one of "
            "position",
            "this version of ConViT has no reader yet; add one in attnprobe/attention/families",
        )
    gated: Any = module
    content, place = (call.output for call in calls)
    gate = torch.sigmoid(gated.gating_param).view(1, -1, 1, 1)
    weights = (1 - gate) * content + gate * place
    return from_weights(weights / weights.sum(-1, keepdim=True))


def _patches(at: At) -> TokenGrid:
    return by_count(at, at.keys)


VARIANTS = (Variant("convit.GPSA", place=_patches, join=_gated),)
