"""Next-ViT (Li et al. 2022): keys averaged over stretches of the reading order."""

from attnprobe.attention.placing import by_count
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _averaged(at: At) -> TokenGrid | None:
    """Keys that are means over stretches of the reading order have no place."""
    return by_count(at, at.keys) if at.queries == at.keys else None


VARIANTS = (Variant("nextvit.EfficientAttention", place=_averaged),)
