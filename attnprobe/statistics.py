"""Bootstrap intervals over images. Torch-free.

Every estimate here is a mean over images or a function of means, so resampling is one
matrix product of draw counts with the samples, and leave-one-out values have a closed form.
Agreement with scipy.stats.bootstrap is a test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

CACHED = 1 << 23  # draw counts kept in memory at once
FEWEST_VALID = 0.95  # share of the draws for which a value has to be defined
MIN_IMAGES = 8  # below this an interval over images would pretend to know something


def cka(hsic: np.ndarray) -> np.ndarray:
    """Return CKA from HSIC of all layer pairs, [..., layers, layers].

    A layer that is constant over images is like nothing but itself.

    >>> cka(np.array([[4.0, 3.0], [3.0, 9.0]]))[0, 1]
    np.float64(0.5)
    """
    own = np.sqrt(np.clip(np.diagonal(hsic, axis1=-2, axis2=-1), 0.0, None))
    norm = own[..., :, None] * own[..., None, :]
    alone = np.broadcast_to(np.eye(hsic.shape[-1]), hsic.shape).copy()
    return np.divide(hsic, norm, out=alone, where=norm > 0)


@dataclass(frozen=True)
class Statistic:
    """What turns means over images into the reported value.

    Attributes:
        of_means: Maps means [draws, ...] to values [draws, ...].
        min_images: Fewest images for which an interval is given.
        largest: Bound of the value, which limits of an interval respect.
        valid: Maps means [draws, ...] to whether the value is defined for them, [draws].
    """

    of_means: Callable[[np.ndarray], np.ndarray]
    min_images: int = MIN_IMAGES
    largest: float = np.inf
    valid: Callable[[np.ndarray], np.ndarray] | None = None


MEAN = Statistic(lambda means: means)


def self_similar(hsic: np.ndarray) -> np.ndarray:
    """Return where no layer's HSIC with itself is negative, so that CKA is defined, [draws]."""
    return np.all(np.diagonal(hsic, axis1=-2, axis2=-1) >= 0, axis=-1)


# with fewer images resampled self-similarities often fall below zero
CKA = Statistic(cka, min_images=32, largest=1.0, valid=self_similar)


@lru_cache(maxsize=4)
def draw_counts(images: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each image is drawn in each resample, float64 [resamples, images]."""
    counts = np.concatenate(list(_count_pieces(images, resamples, seed)))
    counts.flags.writeable = False  # shared by every table of a result
    return counts


def _draws(samples: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the means of every resample, [resamples, columns], in bounded memory."""
    images = len(samples)
    if images * resamples <= CACHED:
        return draw_counts(images, resamples, seed) @ samples / images
    pieces = _count_pieces(images, resamples, seed)
    return np.concatenate([counts @ samples for counts in pieces]) / images


def _count_pieces(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield draw counts some resamples at a time; the pieces do not change the draws."""
    rng = np.random.default_rng(seed)
    share, step = np.full(images, 1.0 / images), max(1, CACHED // images)
    for first in range(0, resamples, step):
        size = min(step, resamples - first)
        yield rng.multinomial(images, share, size=size).astype(np.float64)


def interval(
    samples: np.ndarray,
    statistic: Statistic = MEAN,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Return BCa bootstrap limits of a statistic of the mean over images.

    Args:
        samples: Per-image values, [images, ...].
        statistic: The statistic; its value may have another shape than one image's values.
        resamples: Bootstrap draws.
        seed: Seed of the draws; the same seed draws the same images for every table.
        confidence: Coverage of the interval.

    Returns:
        Lower and upper limits with the statistic's shape; NaN when there are fewer than
        the statistic asks for, which tables store as null.
    """
    images = len(samples)
    flat = samples.reshape(images, -1).astype(np.float64)

    def values(means: np.ndarray) -> np.ndarray:
        return statistic.of_means(means.reshape(-1, *samples.shape[1:]))

    def apply(means: np.ndarray) -> np.ndarray:
        return values(means).reshape(len(means), -1)

    whole = values(flat.mean(0, keepdims=True))
    shape, estimate = whole.shape[1:], whole.ravel()
    if images < statistic.min_images:
        missing = np.full(shape, np.nan)
        return missing, missing.copy()
    means = _draws(flat, resamples, seed)
    if statistic.valid is not None:
        means = means[statistic.valid(means.reshape(-1, *samples.shape[1:]))]
    if len(means) < FEWEST_VALID * resamples:
        missing = np.full(shape, np.nan)
        return missing, missing.copy()
    draws = apply(means)
    jackknife = apply((flat.sum(0) - flat) / (images - 1))
    low, high = _bca(estimate, draws, jackknife, confidence)
    low, high = (np.minimum(limit, statistic.largest) for limit in (low, high))
    return low.reshape(shape), high.reshape(shape)


def _bca(
    estimate: np.ndarray, draws: np.ndarray, jackknife: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated limits (Efron 1987) for each column."""
    resamples = len(draws)
    below = (draws < estimate).mean(0) + 0.5 * (draws == estimate).mean(0)
    bias = ndtri(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    gap = jackknife.mean(0) - jackknife
    spread = (gap**2).sum(0) ** 1.5
    acceleration = np.divide((gap**3).sum(0), 6 * spread, out=np.zeros_like(bias), where=spread > 0)
    tails = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    shifted = bias + tails[:, None]
    level = ndtr(bias + shifted / (1 - acceleration * shifted))
    ordered = np.sort(np.ascontiguousarray(draws.T), axis=1)  # [columns, resamples]
    return _quantile(ordered, level[0]), _quantile(ordered, level[1])


def _quantile(ordered: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Linear-interpolation quantile of each row of [columns, resamples], at its own level."""
    position = level * (ordered.shape[1] - 1)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    row = np.arange(len(ordered))
    weight = position - below
    return (1 - weight) * ordered[row, below] + weight * ordered[row, above]
