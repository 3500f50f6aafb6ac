"""CSATv2: attention over patches in the last stages."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant(
        "csatv2.SpatialTransformerBlock",
        left_out="weighs a map of the features, not patches",
    ),
)
