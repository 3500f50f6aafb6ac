"""A linear classifier on frozen features, trained to the one optimum of a convex loss."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprobe.errors import AttnprobeError
from attnprobe.evaluation.neighbours import positions
from attnprobe.evaluation.ranking import checked, same_width, top_k

STEPS = 500
FLAT = 1e-5  # largest slope that counts as the optimum; losses are about 1


def linear_probe(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    *,
    l2: float = 1e-3,
    steps: int = STEPS,
) -> dict[str, float]:
    """Return the accuracy of multinomial logistic regression on frozen features.

    Channels are standardised with the training set's mean and deviation (constant ones
    become 0). The mean cross-entropy plus l2 / 2 times the squared weights, without the
    biases, has one optimum, which L-BFGS finds from zero without any random number. It runs
    in float64: in float32 the line search stalls before slopes say that it has arrived.

    Args:
        train: Training features, [n, d].
        train_labels: Their classes, [n].
        test: Test features, [m, d].
        test_labels: Their classes, [m]; one that training lacks is never found.
        l2: Penalty, above 0.
        steps: L-BFGS iterations at most.

    Returns:
        linear_top1 and linear_top5, from 0 to 1; linear_converged, 1 if no slope of the
        loss exceeds 1e-5, else 0.

    Raises:
        AttnprobeError: Features are not finite or do not fit, or l2 is not positive.

    >>> linear_probe([[0.0], [1]], [0, 1], [[0.9]], [1])["linear_top1"]
    1.0
    """
    if not l2 > 0:
        raise AttnprobeError(f"l2 is {l2}, which leaves no single optimum", "give it above 0")
    x, labels = checked("training", train, train_labels)
    y, target = checked("test", test, test_labels)
    same_width(x, y)
    home = torch.device("cpu") if x.device.type == "mps" else x.device  # mps has no float64
    x, y, labels = x.to(home).double(), y.to(home).double(), labels.to(home)
    seen, compact = labels.unique(return_inverse=True)
    centre, scale = _standard(x)
    weight, bias, slope = _fit((x - centre) / scale, compact, len(seen), l2=l2, steps=steps)
    logits = (y - centre) / scale @ weight + bias
    top1, top5 = top_k(logits, positions(seen, target.to(home)))
    return {"linear_top1": top1, "linear_top5": top5, "linear_converged": float(slope <= FLAT)}


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel; a deviation of rounding errors becomes 1."""
    centre, scale = x.mean(0), x.std(0, correction=0)
    constant = scale <= 1e-6 * x.abs().amax(0)
    return centre, torch.where(constant, 1.0, scale)


def _fit(
    x: Tensor, labels: Tensor, classes: int, *, l2: float, steps: int
) -> tuple[Tensor, Tensor, float]:
    """Return weights [d, classes], biases [classes] and the largest slope left."""
    basis = _basis(x, classes, l2)
    turned = x @ basis
    inner = torch.zeros(x.shape[1], classes, dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [inner, bias],
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=FLAT / 10,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(turned @ inner + bias, labels)
        value = value + l2 / 2 * (basis @ inner).square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType] - a tensor is what it wants
    weight, bias = basis @ inner.detach(), bias.detach()
    return weight, bias, _slope(x, labels, weight, bias, l2)


def _basis(x: Tensor, classes: int, l2: float) -> Tensor:
    """Return coordinates [d, d] of the weights in which the loss bends alike in all directions.

    The second derivative of the cross-entropy is about the features' covariance times
    1 / classes; that of the penalty is l2. Other coordinates leave the optimum where it is.
    """
    bend, turn = torch.linalg.eigh(x.T @ x / len(x))
    return turn / (bend.clamp(min=0) / classes + l2).sqrt()


def _slope(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, l2: float) -> float:
    """Return the largest slope of the loss in any weight or bias."""
    wrong = (x @ weight + bias).softmax(1) - F.one_hot(labels, len(bias))
    slopes = (x.T @ wrong / len(x) + l2 * weight, wrong.mean(0))
    return max(float(slope.abs().max()) for slope in slopes)
