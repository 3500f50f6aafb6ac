"""Hiera (Ryali et al. 2023), also of SAM 2: mask units, and queries that are pooled."""

from attnprobe.attention.placing import unknown
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _refused(at: At) -> TokenGrid:
    raise unknown(at, f"{at.keys} keys, in an order of the model's own,")


VARIANTS = (
    Variant("hiera.MaskUnitAttention", place=_refused),
    Variant("hieradet_sam2.MultiScaleAttention", place=_refused),
)
