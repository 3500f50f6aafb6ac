"""Shares of images whose class is among the highest scores, and checks of what is compared."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import AttnprobeError


def top_k(scores: Tensor, target: Tensor) -> tuple[float, float]:
    """Return the shares of rows whose class is first, and among the first five.

    Of equal scores the class of the lower number comes first. A score of minus infinity is
    never among them, and neither is a class outside the columns.

    Args:
        scores: float [n, classes].
        target: Classes, int64 [n].

    >>> top_k(torch.tensor([[0.1, 0.9], [0.9, 0.1]]), torch.tensor([1, 1]))
    (0.5, 1.0)
    """
    target = target.to(scores.device)
    known = (target >= 0) & (target < scores.shape[1])
    column = torch.where(known, target, 0).unsqueeze(1)
    own = scores.gather(1, column)
    earlier = torch.arange(scores.shape[1], device=scores.device) < column
    rank = ((scores > own) | ((scores == own) & earlier)).sum(1)
    known &= own.squeeze(1) > -torch.inf
    first, fifth = ((known & (rank < k)).double().mean() for k in (1, 5))
    return float(first), float(fifth)


def checked(title: str, x: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return features as float32 [n, d] and labels as int64 [n], on the features' device.

    Args:
        title: What they are called in messages.
        x: Features.
        labels: One class number a row.

    Raises:
        AttnprobeError: Shapes do not fit, there are no rows, or a value is not finite.
    """
    found = torch.as_tensor(x).detach().to(torch.float32)
    numbers = torch.as_tensor(np.asarray(labels) if not isinstance(labels, Tensor) else labels)
    if found.ndim != 2 or numbers.shape != (len(found),) or not found.numel():
        raise AttnprobeError(
            f"{title} features have shape {tuple(found.shape)} and labels {tuple(numbers.shape)}",
            "give features [n, d] and labels [n], n of 1 or more",
        )
    if numbers.is_floating_point():
        raise AttnprobeError(f"{title} labels are {numbers.dtype}", "give whole numbers")
    bad = (~torch.isfinite(found)).any(1).nonzero().flatten()
    if len(bad):
        raise AttnprobeError(
            f"{len(bad)} of {len(found)} rows of the {title} features are not finite "
            f"(the first is row {int(bad[0])})",
            "check the model and the precision it ran in",
        )
    return found, numbers.to(found.device, torch.int64)


def same_width(train: Tensor, test: Tensor) -> None:
    """Refuse features of two widths.

    Raises:
        AttnprobeError: They differ.
    """
    if train.shape[1] != test.shape[1]:
        raise AttnprobeError(
            f"training features have {train.shape[1]} channels, test features {test.shape[1]}",
            "extract both with the same model and pooling",
        )
