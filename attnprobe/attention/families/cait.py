"""CaiT (Touvron et al. 2021): patches alone, by talking heads; then a class token that reads them.

What is measured of talking heads is the softmax, which gives one distribution a head; the mixture
of heads after it weighs values by sums that may be negative.
"""

from attnprobe.attention.placing import by_count
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _patches(at: At) -> TokenGrid:
    return by_count(at, at.keys)


VARIANTS = (Variant("cait.TalkingHeadAttn", place=_patches),)
