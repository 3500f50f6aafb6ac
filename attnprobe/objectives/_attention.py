"""Which attention of timm trains fastest on a device.

On graphics cards the fused kernels do. On processors their backward pass does not: of ViT-B's
attention, forward and backward together take 1.9 times as long fused as written out in bfloat16
(2.4 times without bias), and a tenth longer in float32 if a bias gets a gradient; without bias,
float32 gains from fusing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

_BIASES = ("relative_position_bias_table", "rel_pos.", "rel_pos_bias.")


def suited(module: nn.Module, images: Tensor) -> AbstractContextManager[None]:
    """Return a context in which attention is written out where that trains faster.

    Outputs are the same up to rounding. Nothing changes on graphics cards, in compiled modules
    (the compiler chooses), and where activations are computed again for the backward pass
    (which happens outside the context). Layers that timm leaves unfused (Swin) stay so.

    Args:
        module: A backbone, or a module around it.
        images: Its input; autocast is looked up for its device.
    """
    if torch.compiler.is_compiling() or images.device.type != "cpu":
        return nullcontext()
    half = torch.is_autocast_enabled("cpu") or images.element_size() < 4
    biased = any(part in name for name, _ in module.named_parameters() for part in _BIASES)
    again = any(getattr(item, "grad_checkpointing", False) for item in module.modules())
    return nullcontext() if again or not (half or biased) else _unfused(module)


@contextmanager
def _unfused(module: nn.Module) -> Iterator[None]:
    fused: list[Any] = [item for item in module.modules() if getattr(item, "fused_attn", False)]
    for layer in fused:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer in fused:
            layer.fused_attn = True
