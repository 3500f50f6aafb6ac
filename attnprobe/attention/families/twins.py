"""Twins (Chu et al. 2021): windows, and keys pooled by a convolution."""

import math
from functools import partial

from torch import nn

from attnprobe.attention.placing import strided, windows
from attnprobe.attention.reader import RawAttention
from attnprobe.attention.variant import Variant


def _arranged(module: nn.Module, raw: RawAttention) -> RawAttention:
    del module
    q, k = (x.flatten(0, 1) if x.ndim == 5 else x for x in (raw.q, raw.k))
    return raw._replace(q=q, k=k)


# its merging leaves out what makes no whole token
VARIANTS = (
    Variant(
        "twins.LocallyGroupedAttn", place=partial(windows, rounded=math.floor), arrange=_arranged
    ),
    Variant("twins.GlobalSubSampleAttn", place=partial(strided, rounded=math.floor)),
)
