"""Linear attention, which has no matrix of probabilities."""

from attnprobe.attention.variant import Variant

_KINDS = (
    "coat.FactorAttnConvRelPosEnc",
    "efficientvim.HSMSSD",
    "lambda_layer.LambdaLayer",
    "mobilevit.LinearSelfAttention",
    "modeling_mobilevitv2.MobileViTV2LinearSelfAttention",
    "modeling_swiftformer.SwiftFormerEfficientAdditiveAttention",
)
_REASON = "never forms one probability for each query and key"
VARIANTS = tuple(Variant(kind, refused=_REASON) for kind in _KINDS)
