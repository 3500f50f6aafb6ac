"""How good frozen features are: nearest neighbours, a linear probe, the model's own classifier."""

from typing import Any

import numpy as np
import torch
from torch import nn

from attnprobe.datasets import Pictures
from attnprobe.errors import AttnprobeError
from attnprobe.evaluation.features import Frozen, extract, features
from attnprobe.evaluation.linear import linear_probe
from attnprobe.evaluation.neighbours import knn
from attnprobe.evaluation.ranking import top_k
from attnprobe.types import CheckpointSpec

__all__ = ["evaluate", "features", "knn", "linear_probe"]


def evaluate(
    encoder: nn.Module,
    train: Pictures,
    test: Pictures,
    spec: CheckpointSpec,
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    batch: int = 256,
    device: Any = None,
    workers: int = 0,
    pool: str = "patches",
    k: int = 20,
    temperature: float = 0.07,
    l2: float = 1e-3,
) -> dict[str, float]:
    """Return accuracies on the test images, each from 0 to 1.

    Args:
        encoder: timm model; weights, modes and generators are left as they were.
        train: Labelled images to learn from.
        test: Labelled images to test on, of the same classes.
        spec: How images are preprocessed.
        limit: Training images at most, evenly spaced.
        test_limit: Test images at most, evenly spaced.
        batch: Images of one forward pass.
        device: Where to run; None: where the model is.
        workers: Processes that decode.
        pool: patches, cls or head; see `features`.
        k: Neighbours.
        temperature: Of the neighbours' votes.
        l2: Penalty on the probe's weights.

    Returns:
        knn_top1, knn_top5, linear_top1, linear_top5; linear_converged, 1 or 0; and, if the
        model has a classifier of as many classes, top1 and top5 of it.

    Raises:
        AttnprobeError: Labels are missing, classes differ, or features are not finite.
    """
    numbers = common_classes(train, test)
    shared: dict[str, Any] = {"batch": batch, "device": device, "workers": workers, "pool": pool}
    learnt = extract(encoder, train, spec, limit=limit, **shared)
    tested = extract(encoder, test, spec, limit=test_limit, **shared)
    target = numbers[tested.labels]
    place = torch.device("cpu") if device is None else torch.device(device)
    sides = (learnt.x.to(place), learnt.labels, tested.x.to(place), target)
    found = knn(*sides, k=k, temperature=temperature) | linear_probe(*sides, l2=l2)
    return found | _own(tested, target, len(train.classes))


def _own(tested: Frozen, target: np.ndarray, classes: int) -> dict[str, float]:
    """Return the accuracy of the model's own classifier, if it is one of these classes."""
    if tested.logits is None or tested.logits.shape[1] != classes:
        return {}
    top1, top5 = top_k(tested.logits, torch.from_numpy(target))
    return {"top1": top1, "top5": top5}


def common_classes(train: Pictures, test: Pictures) -> np.ndarray:
    """Return the training set's number for each class of the test set, int64 [classes].

    Raises:
        AttnprobeError: One of them has no labels, or the test set a class of its own.
    """
    for pictures in (train, test):
        if pictures.labels is None:
            raise AttnprobeError(
                f"{pictures.label} has no labels", "give a folder with one sub-folder a class"
            )
    numbers = {name: number for number, name in enumerate(train.classes)}
    strange = [name for name in test.classes if name not in numbers]
    if strange:
        raise AttnprobeError(
            f"{test.label} has the class {strange[0]!r}, which {train.label} has not",
            "give sets of the same classes",
        )
    return np.array([numbers[name] for name in test.classes], dtype=np.int64)
