"""Paired tests and effect sizes over images. Torch-free.

Agreement with scipy.stats (permutation_test, false_discovery_control) is a test; scipy's own take
memory for every pattern and a second to import.
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import ndtri

from attnprobe.statistics import CACHED, MIN_IMAGES


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
    # the spread of equal differences is only their rounding
    return correction * np.divide(mean, spread, out=alone, where=spread > 1e-12 * np.abs(mean))


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
