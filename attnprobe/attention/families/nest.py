"""NesT (Zhang et al. 2021): blocks of the image side by side, heads before blocks."""

from torch import nn

from attnprobe.attention.placing import windows
from attnprobe.attention.reader import RawAttention
from attnprobe.attention.variant import Variant


def _arranged(module: nn.Module, raw: RawAttention) -> RawAttention:
    del module
    q, k = (x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x for x in (raw.q, raw.k))
    return raw._replace(q=q, k=k)


VARIANTS = (Variant("nest.Attention", place=windows, arrange=_arranged),)
