"""Bootstrap intervals and paired tests over images. Torch-free.

Every estimate here is a mean over images or a function of means, so resampling is one
matrix product of draw counts with the samples, and leave-one-out values have a closed form.
Agreement with scipy.stats (bootstrap, permutation_test) is a test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

CACHED = 1 << 23  # draw counts kept in memory at once
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
    """

    of_means: Callable[[np.ndarray], np.ndarray]
    min_images: int = MIN_IMAGES
    largest: float = np.inf


MEAN = Statistic(lambda means: means)
# with fewer images resampled self-similarities reach zero, and the ratio means nothing
CKA = Statistic(cka, min_images=32, largest=1.0)


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
    draws = apply(_draws(flat, resamples, seed))
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


def sign_flip(differences: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """Return two-sided p-values of the paired permutation test on mean differences.

    Under the null hypothesis the two members of a pair can be exchanged, which flips the sign of
    their difference. All sign patterns are tried where `resamples` reaches their number, so
    that the test is exact; else random ones, the observed pattern counted among them.

    Args:
        differences: One difference a pair, [pairs, ...].
        resamples: Sign patterns to try.
        seed: Seed of the random patterns.

    >>> sign_flip(np.array([1.0, 2.0, 3.0]))  # 2 of 8 patterns are as extreme
    array(0.25)
    """
    pairs, shape = len(differences), differences.shape[1:]
    flat = differences.reshape(pairs, -1).astype(np.float64)
    seen = np.abs(flat.sum(0))
    # sums of equal terms in another order differ in their last digits
    least = seen * (1 - 1e-12)
    exact = pairs < resamples.bit_length()  # all 2^pairs patterns are few enough
    patterns = _all_signs(pairs) if exact else _random_signs(pairs, resamples, seed)
    tried = extreme = 0
    for signs in patterns:
        extreme = extreme + (np.abs(signs @ flat) >= least).sum(0)
        tried += len(signs)
    p = extreme / tried if exact else (extreme + 1) / (tried + 1)
    return np.asarray(p).reshape(shape)


def _all_signs(pairs: int) -> Iterator[np.ndarray]:
    number = np.arange(2**pairs)
    yield 1.0 - 2.0 * ((number[:, None] >> np.arange(pairs)) & 1)


def _random_signs(pairs: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    step = max(1, CACHED // pairs)
    for first in range(0, resamples, step):
        size = (min(step, resamples - first), pairs)
        yield 1.0 - 2.0 * rng.integers(0, 2, size=size)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Return p-values adjusted to control the false discovery rate; missing ones stay missing.

    >>> benjamini_hochberg(np.array([0.01, np.nan, 0.04])).tolist()
    [0.02, nan, 0.04]
    """
    adjusted, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(-p[known])]  # largest first
    rank = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum.accumulate(p[order] * len(order) / rank).clip(max=1)
    return adjusted


def effect_size(differences: np.ndarray) -> np.ndarray:
    """Return the standardised mean difference of pairs, d_z with Hedges' correction.

    Zero where all differences are zero; missing where they are constant and not zero, or few.

    Args:
        differences: One difference a pair, [pairs, ...].

    >>> effect_size(np.array([1.0, 3.0] * 4)).round(3)
    np.float64(1.663)
    """
    pairs = len(differences)
    if pairs < 3:
        return np.full(differences.shape[1:], np.nan)
    mean, spread = differences.mean(0), differences.std(0, ddof=1)
    correction = 1 - 3 / (4 * (pairs - 1) - 1)
    alone = np.where(mean == 0, 0.0, np.nan)
    return correction * np.divide(mean, spread, out=alone, where=spread > 0)


def images_needed(
    differences: np.ndarray, *, confidence: float = 0.95, power: float = 0.8
) -> np.ndarray:
    """Return how many images would show a difference of this size, with normal theory.

    Args:
        differences: One difference an image, [images, ...].
        confidence: Of the interval that has to exclude zero.
        power: Chance that it does.

    Returns:
        Numbers of images, at least `MIN_IMAGES`; NaN where the mean difference is zero.
    """
    if len(differences) < 2:
        return np.full(differences.shape[1:], np.nan)
    mean, spread = differences.mean(0), differences.std(0, ddof=1)
    reach = ndtri((1 + confidence) / 2) + ndtri(power)
    ratio = np.divide(spread, np.abs(mean), out=np.full_like(mean, np.nan), where=mean != 0)
    return np.maximum(np.ceil((reach * ratio) ** 2), MIN_IMAGES)
