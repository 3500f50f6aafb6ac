"""What the tensors of a block say about its parts: norms, MLP, biases, activation."""

from functools import partial
from typing import Any

from timm.layers.mlp import SwiGLU, SwiGLUPacked
from timm.layers.norm import RmsNorm
from torch import nn

from attnprobe.checkpoints.building import architecture
from attnprobe.checkpoints.building.architecture import Shapes

# names of other libraries by timm's
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "swish": "silu"}


def plain(shapes: Shapes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return arguments that every plain transformer shares, and what was assumed for them."""
    width, channels, patch = architecture.patch_embedding(shapes)
    layers = architecture.depth(shapes.shapes)
    heads, assumed = architecture.choose_heads(shapes, width, layers)
    hidden = shapes.first(".mlp.fc2.weight")[1]
    return {
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": layers,
        "num_heads": heads,
        "mlp_ratio": architecture.ratio(hidden, width),
        "num_classes": architecture.classes(shapes, "head", width),
        "norm_layer": norm(shapes),
    }, (*assumed, *shapes.fact("said", ()))


def norm(shapes: Shapes) -> Any:
    """Return the norm of the blocks: LayerNorm, or RMSNorm where it has no bias."""
    usual = 1e-5 if "norm_pre.weight" in shapes else 1e-6  # CLIP's and its relatives'
    eps = float(shapes.fact("norm_eps", usual))
    weight, bias = shapes.any(".norm1.weight"), shapes.any(".norm1.bias")
    return partial(RmsNorm if weight and not bias else nn.LayerNorm, eps=eps)


def packed(shapes: Shapes) -> bool:
    """Return whether the MLP is gated with both input matrices in one."""
    if split(shapes):
        return False
    return shapes.first(".mlp.fc1.weight")[0] == 2 * shapes.first(".mlp.fc2.weight")[1]


def split(shapes: Shapes) -> bool:
    """Return whether the MLP is gated with two input matrices."""
    return shapes.any(".mlp.fc1_g.weight")


def mlp(shapes: Shapes) -> dict[str, Any]:
    """Return the MLP of a plain ViT and its activation."""
    if split(shapes):
        return {"mlp_layer": SwiGLU, "act_layer": "silu"}
    if packed(shapes):
        # timm's hidden size of the packed kind counts both halves
        width, hidden = shapes.first(".mlp.fc2.weight")
        ratio = architecture.ratio(2 * hidden, width)
        return {"mlp_layer": SwiGLUPacked, "act_layer": "silu", "mlp_ratio": ratio}
    act = shapes.fact("act")
    return {"act_layer": _ACTIVATIONS.get(act, act)}
