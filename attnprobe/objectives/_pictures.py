"""Pictures for people: what was shown, what was hidden, what was made of it."""

import torch
from torch import Tensor

from attnprobe.objectives import Framing

GREY = 0.5


def panels(images: Tensor, made: Tensor, hidden: Tensor, framing: Framing) -> Tensor:
    """Lay out original, masked input, reconstruction, and reconstruction among visible patches.

    Args:
        images: Normalised images, [batch, 3, height, width].
        made: Their reconstruction, of the same shape and scale.
        hidden: bool [batch, 1, height, width].
        framing: Mean and standard deviation of the normalisation.

    Returns:
        uint8 [batch, 4, 3, height, width].
    """
    original, made = (_unit(x, framing) for x in (images, made))
    masked = torch.where(hidden, GREY, original)
    pasted = torch.where(hidden, made, original)
    stacked = torch.stack((original, masked, made, pasted), 1)
    return (stacked * 255).round().to(torch.uint8).cpu()


def _unit(x: Tensor, framing: Framing) -> Tensor:
    """Undo the normalisation, into [0, 1]."""
    mean, std = (x.new_tensor(value).view(-1, 1, 1) for value in (framing.mean, framing.std))
    return (x * std + mean).nan_to_num(GREY).clamp(0, 1)
