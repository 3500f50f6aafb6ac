"""What an objective has to know about a timm backbone, found by running it once."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.errors import AttnprobeError

# tokens and positions are free of weight decay wherever they are (SimMIM, MAE, BEiT, Swin)
_UNDECAYED = (
    "mask_token",
    "cls_token",
    "reg_token",
    "dist_token",
    "pos_embed",
    "decoder_pos_embed",
    "absolute_pos_embed",
    "relative_position_bias_table",
)


@dataclass(frozen=True)
class Layout:
    """Where the patches of a backbone's output lie.

    Attributes:
        channels: Channels of the output.
        rows: Rows of the output's grid.
        cols: Columns of the output's grid.
        prefix: Tokens before the patches.
        width: Channels of the patch embedding.
    """

    channels: int
    rows: int
    cols: int
    prefix: int
    width: int


def embedding(encoder: nn.Module) -> tuple[nn.Module, nn.Conv2d]:
    """Return a backbone's patch embedding and its convolution.

    Raises:
        AttnprobeError: It has none whose patches are disjoint.
    """
    patches: Any = getattr(encoder, "patch_embed", None)
    convolution: Any = getattr(patches, "proj", None)
    disjoint = (
        isinstance(convolution, nn.Conv2d)
        and convolution.kernel_size == convolution.stride
        and convolution.kernel_size == tuple(getattr(patches, "patch_size", ()))
    )
    if not disjoint:
        raise AttnprobeError(
            f"{type(encoder).__name__} has no patch embedding (patch_embed.proj) of disjoint "
            "patches, so that patches cannot be hidden from it",
            "take a ViT, DeiT, BEiT, EVA, relative-position ViT, Swin or Swin V2 backbone",
        )
    return patches, convolution


def examine(encoder: nn.Module, size: tuple[int, int]) -> Layout:
    """Find the layout of a backbone and freeze the parameters that its features do not use.

    A head or a norm after pooling that gets no gradient would stall training in several
    processes.

    Args:
        encoder: Backbone with `forward_features`.
        size: Height and width of its input in pixels.

    Raises:
        AttnprobeError: Its patches cannot be hidden, or its output is no grid.
    """
    _, convolution = embedding(encoder)
    features = trial(encoder, size, encoder.forward_features)
    prefix = int(getattr(encoder, "num_prefix_tokens", 0))
    down, across = convolution.stride
    grid = (size[0] // down, size[1] // across)
    if features.ndim == 3 and features.shape[1] == prefix + grid[0] * grid[1]:
        return Layout(features.shape[2], *grid, prefix, convolution.out_channels)
    if features.ndim == 4 and _channels_last(encoder):
        rows, cols, channels = features.shape[1:]
        return Layout(channels, rows, cols, 0, convolution.out_channels)
    raise AttnprobeError(
        f"{type(encoder).__name__} gives features of shape {tuple(features.shape)} for an input "
        f"of {size[0]} x {size[1]}, in which patches have no known place",
        "take a ViT, DeiT, BEiT, EVA, relative-position ViT, Swin or Swin V2 backbone",
    )


def _channels_last(encoder: nn.Module) -> bool:
    return getattr(encoder, "output_fmt", "") == "NHWC"


def trial(encoder: nn.Module, size: tuple[int, int], forward: Any) -> Tensor:
    """Run one blank image forward and backward; freeze what gets no gradient.

    Draws no random numbers and leaves modes and gradients as they were.
    """
    weight = next(encoder.parameters())
    blank = torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype)
    training = encoder.training
    encoder.eval()
    with torch.enable_grad():
        features = forward(blank)
        weights = [item for item in encoder.parameters() if item.requires_grad]
        found = torch.autograd.grad(features.sum(), weights, allow_unused=True)
    for item, gradient in zip(weights, found, strict=True):
        item.requires_grad_(gradient is not None)
    encoder.train(training)
    return features.detach()


def grid(features: Tensor, layout: Layout) -> Tensor:
    """Return features as [batch, channels, rows, cols], without prefix tokens."""
    if features.ndim == 3:
        features = features[:, layout.prefix :].unflatten(1, (layout.rows, layout.cols))
    return features.permute(0, 3, 1, 2)


def undecayed(module: nn.Module) -> set[str]:
    """Names of parameters that weight decay leaves alone, beside biases and norms."""
    own: Any = getattr(module.encoder, "no_weight_decay", set)
    named = (name for name, _ in module.named_parameters())
    tokens = (name for name in named if name.rpartition(".")[2] in _UNDECAYED)
    return set(chain((f"encoder.{name}" for name in own()), tokens))
