"""GCViT (Hatamizadeh et al. 2022): windows with global queries."""

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import Variant

VARIANTS = (Variant("gcvit.WindowAttentionGlobal", place=windows),)
