"""Which layers of two models stand against each other, and which of their heads.

By layer: the first against the first, as far as both go. By relative depth: layers lie at
0 (first) to 1 (last), and the deeper model's per-image values are interpolated linearly at the
depths of the shallower one. Models of equal depth are aligned the same way by both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Aligned:
    """Per-image values of two models at common positions.

    Attributes:
        kind: layer or depth.
        depth: Relative depth of each position (in model a, when aligned by layer), [positions].
        layer_a: Layer of model a at each position, from 0; fractional between two layers.
        layer_b: Likewise for model b.
        a: Values of model a, [images, positions].
        b: Values of model b, [images, positions].
    """

    kind: str
    depth: np.ndarray
    layer_a: np.ndarray
    layer_b: np.ndarray
    a: np.ndarray
    b: np.ndarray


def alignments(
    a: dict[int, np.ndarray], b: dict[int, np.ndarray], depths: tuple[int, int]
) -> Iterator[Aligned]:
    """Yield the alignment by layer and, for models of different depth, the one by depth.

    Args:
        a: Values by layer index, [images].
        b: Likewise for the other model.
        depths: Layers of both models.
    """
    common = np.array(sorted(set(a) & set(b)))
    if len(common):
        yield Aligned(
            "layer",
            relative(common, depths[0]),
            common.astype(float),
            common.astype(float),
            np.stack([a[layer] for layer in common], axis=1),
            np.stack([b[layer] for layer in common], axis=1),
        )
    if depths[0] != depths[1] and a and b:
        depth = np.linspace(0, 1, min(depths))
        depth = depth[_within(a, depths[0], depth) & _within(b, depths[1], depth)]
        if not len(depth):
            return
        yield Aligned(
            "depth",
            depth,
            depth * (depths[0] - 1),
            depth * (depths[1] - 1),
            at_depths(a, depths[0], depth),
            at_depths(b, depths[1], depth),
        )


def relative(layer: np.ndarray, layers: int) -> np.ndarray:
    """Return relative depths, 0 for the first layer and 1 for the last.

    >>> relative(np.array([0, 11]), 12).tolist()
    [0.0, 1.0]
    """
    return layer / max(1, layers - 1)


def at_depths(values: dict[int, np.ndarray], layers: int, depth: np.ndarray) -> np.ndarray:
    """Interpolate per-image values between layers, [images, positions]."""
    known = sorted(values)
    place = relative(np.array(known), layers)
    stacked = np.stack([values[layer] for layer in known], axis=1)  # [images, layers]
    right = np.clip(np.searchsorted(place, depth), 1, max(1, len(known) - 1))
    left = right - 1
    if len(known) == 1:
        return np.repeat(stacked, len(depth), axis=1)
    weight = np.clip((depth - place[left]) / (place[right] - place[left]), 0, 1)
    return (1 - weight) * stacked[:, left] + weight * stacked[:, right]


def _within(values: dict[int, np.ndarray], layers: int, depth: np.ndarray) -> np.ndarray:
    """Return which depths lie between layers that have a value."""
    place = relative(np.array(sorted(values)), layers)
    return (place[0] - 1e-9 <= depth) & (depth <= place[-1] + 1e-9)


def layer_pairs(depths: tuple[int, int]) -> list[tuple[int, int]]:
    """Return whole layers that stand against each other: nearest in relative depth.

    >>> layer_pairs((2, 4))
    [(0, 0), (1, 3)]
    """
    depth = np.linspace(0, 1, min(depths))
    sides = [np.floor(depth * (layers - 1) + 0.5).astype(int) for layers in depths]
    return list(zip(*(side.tolist() for side in sides), strict=True))


def matched(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    """Return the assignment of heads with the least total distance between their profiles.

    Each head of the model with fewer heads gets one of the other's (Hungarian method).

    Args:
        a: One profile a head, [heads, quantities].
        b: Likewise for the other model.

    >>> matched(np.array([[0.0], [1.0]]), np.array([[0.9], [5.0], [0.1]]))
    [(0, 2), (1, 0)]
    """
    cost = np.linalg.norm(a[:, None, :] - b[None, :, :], axis=2)
    first, second = linear_sum_assignment(cost)
    return list(zip(first.tolist(), second.tolist(), strict=True))
