"""Twins (Chu et al. 2021): windows, and keys pooled by a convolution."""

from torch import nn

from attnprobe.attention.placing import strided, windows
from attnprobe.attention.reader import RawAttention
from attnprobe.attention.variant import Variant


def _arranged(module: nn.Module, raw: RawAttention) -> RawAttention:
    del module
    q, k = (x.flatten(0, 1) if x.ndim == 5 else x for x in (raw.q, raw.k))
    return raw._replace(q=q, k=k)


VARIANTS = (
    Variant("twins.LocallyGroupedAttn", place=windows, arrange=_arranged),
    Variant("twins.GlobalSubSampleAttn", place=strided),
)
