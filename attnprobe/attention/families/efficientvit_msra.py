"""EfficientViT (Liu et al. 2023): cascaded groups, heads one after another, in windows."""

from collections.abc import Sequence

import torch
from torch import nn

from attnprobe.attention.placing import windows
from attnprobe.attention.reader import Call, RawAttention
from attnprobe.attention.variant import Variant
from attnprobe.attention.weighted import from_logits


def _cascade(module: nn.Module, calls: Sequence[Call]) -> RawAttention:
    """Put the heads, [images x windows, queries, keys] each, side by side."""
    del module
    return from_logits(torch.stack([call.args[0] for call in calls], 1))


VARIANTS = (Variant("efficientvit_msra.CascadedGroupAttention", place=windows, join=_cascade),)
