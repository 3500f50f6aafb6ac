"""Weighted nearest neighbours on frozen features (Wu et al., CVPR 2018, section 3.4)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprobe.errors import AttnprobeError
from attnprobe.evaluation.ranking import checked, same_width, top_k

_AT_ONCE = 2**24  # similarities held at a time


def knn(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, float]:
    """Return the accuracy of a vote of the nearest training images.

    Each of the k training images of highest cosine similarity s votes for its class with
    weight exp(s / temperature), as DINO evaluates (Caron et al. 2021, with k = 20). Of
    training images with the same similarity the earlier ones are taken, and of classes with
    the same votes the lower number wins. A class without a vote is never counted as found,
    not even among the first five.

    Args:
        train: Training features, [n, d].
        train_labels: Their classes, [n].
        test: Test features, [m, d].
        test_labels: Their classes, [m].
        k: Neighbours; all n if there are fewer.
        temperature: Above 0; smaller values favour the nearest.

    Returns:
        knn_top1 and knn_top5, from 0 to 1.

    Raises:
        AttnprobeError: Features are not finite or do not fit, or k or temperature is not
            positive.

    >>> knn([[1.0, 0], [0, 1]], [0, 1], [[2.0, 1]], [0])
    {'knn_top1': 1.0, 'knn_top5': 1.0}
    """
    if k < 1 or not temperature > 0:
        raise AttnprobeError(
            f"k is {k} and temperature {temperature}", "give a k of 1 or more and one above 0"
        )
    x, labels = checked("training", train, train_labels)
    y, target = checked("test", test, test_labels)
    same_width(x, y)
    seen, compact = labels.unique(return_inverse=True)
    x, k = F.normalize(x, dim=1), min(k, len(x))
    parts = []
    for rows in F.normalize(y, dim=1).to(x.device).split(max(1, _AT_ONCE // len(x))):
        similarity, nearest = _nearest(rows @ x.T, k)
        weight = torch.exp((similarity - similarity.amax(1, keepdim=True)) / temperature)
        votes = torch.zeros(len(rows), len(seen), device=x.device)
        parts.append(votes.scatter_add_(1, compact[nearest], weight))
        # a far neighbour's weight may vanish beside a near one's, but it did vote
        voted = torch.zeros_like(votes).scatter_(1, compact[nearest], 1.0)
        parts[-1][voted == 0] = -torch.inf
    top1, top5 = top_k(torch.cat(parts), positions(seen, target.to(x.device)))
    return {"knn_top1": top1, "knn_top5": top5}


def positions(seen: Tensor, labels: Tensor) -> Tensor:
    """Return where labels stand in an ascending list of classes; -1 where they do not."""
    place = torch.searchsorted(seen, labels).clamp(max=len(seen) - 1)
    return torch.where(seen[place] == labels, place, -1)


def _nearest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row and their columns; of equal ones the first columns."""
    last = similarity.topk(k, dim=1).values[:, -1:]
    above, equal = similarity > last, similarity == last
    missing = k - above.sum(1, keepdim=True)
    taken = above | (equal & (equal.cumsum(1) <= missing))
    columns = taken.nonzero()[:, 1].view(-1, k)
    return similarity.gather(1, columns), columns
