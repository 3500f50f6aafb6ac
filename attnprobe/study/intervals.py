"""Student intervals over training seeds, which are few: of a mean, and of a difference."""

import numpy as np
from scipy.special import stdtrit


def of_mean(values: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Return the t interval of the mean over seeds, [2, ...].

    Args:
        values: One row a seed, [seeds, ...].
        confidence: Coverage.

    Returns:
        Lower and upper ends; NaN with one seed, and where seeds do not differ at all, because
        then their spread is unknown rather than zero.

    >>> of_mean(np.array([1.0, 2.0, 3.0])).round(3).tolist()
    [-0.484, 4.484]
    """
    count = len(values)
    if count < 2:
        return np.full((2, *values.shape[1:]), np.nan)
    spread = values.std(0, ddof=1)
    reach = stdtrit(count - 1, (1 + confidence) / 2) * spread / np.sqrt(count)
    return np.where(_varies(values), values.mean(0) + np.stack([-reach, reach]), np.nan)


def of_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Return Welch's t interval of mean(a) - mean(b), [2]; NaN as for `of_mean`.

    Args:
        a: One number a seed.
        b: Likewise of other runs; of any number and spread.
        confidence: Coverage.
    """
    if min(len(a), len(b)) < 2 or not (_varies(a) or _varies(b)):
        return np.full(2, np.nan)
    parts = [side.var(ddof=1) / len(side) for side in (a, b)]
    each = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
    reach = stdtrit(sum(parts) ** 2 / each, (1 + confidence) / 2) * np.sqrt(sum(parts))
    return a.mean() - b.mean() + np.array([-reach, reach])


def _varies(values: np.ndarray) -> np.ndarray:
    """Return where seeds differ by more than rounding."""
    return np.ptp(values, axis=0) > 1e-12 * np.abs(values).max(0)
