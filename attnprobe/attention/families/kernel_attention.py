"""Softmaxes over kernels or parts of the channels, which attend to no patch."""

from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant("global_context.GlobalContext", left_out="weighs places for a gate of the channels"),
    Variant("selective_kernel.SelectiveKernelAttn", refused="weighs kernels, not patches"),
    Variant("split_attn.SplitAttn", refused="weighs parts of the channels, not patches"),
)
