"""Unbiased HSIC of many layers at once, with its leave-one-out values. Torch-free.

HSIC1 (Song et al. 2012, eq. 5) is a U-statistic, so the leave-one-out pseudo-values of a
mini-batch average to the estimate itself; they are per-image samples for intervals. Mini-batches
are averaged (Nguyen et al. 2021, eq. 3), which pseudo-values do by standing side by side.
"""

import numpy as np

SMALLEST = 5  # images in a mini-batch: HSIC1 needs 4, leaving one out needs one more


def pseudo_values(gram: np.ndarray) -> np.ndarray:
    """Return the HSIC pseudo-values of one mini-batch, float64 [n, layers, layers].

    Args:
        gram: Gram matrices with zero diagonal, [layers, n, n], n >= 5.
    """
    n = gram.shape[1]
    whole, left = hsic(gram)
    return n * whole - (n - 1) * left


def hsic(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unbiased HSIC of all pairs, and its leave-one-out values.

    Args:
        gram: Gram matrices with zero diagonal, [layers, n, n], n >= 5.

    Returns:
        HSIC1 [layers, layers] and HSIC1 without image i [n, layers, layers].
    """
    gram = gram.astype(np.float64)
    n = gram.shape[1]
    rows = gram.sum(2).T  # [n, layers]
    by_image = gram.transpose(1, 0, 2)  # [n, layers, n]
    inner = by_image @ by_image.transpose(0, 2, 1)  # one image's row against its row
    cross = by_image @ rows  # sum_j K_ij l_j
    total = rows.sum(0)
    pair, product = inner.sum(0), rows.T @ rows
    left_total = total - 2 * rows  # [n, layers]
    left_pair = pair - 2 * inner
    # row sums without image i are k_j - K_ij for j != i
    own = rows[:, :, None] * rows[:, None, :]
    left_product = product - own - cross - cross.transpose(0, 2, 1) + inner
    outer = left_total[:, :, None] * left_total[:, None, :]
    return (
        _combine(pair, total[:, None] * total[None, :], product, n),
        _combine(left_pair, outer, left_product, n - 1),
    )


def _combine(pair: np.ndarray, outer: np.ndarray, product: np.ndarray, n: int) -> np.ndarray:
    """HSIC1 from tr(KL), (1'K1)(1'L1) and 1'KL1 of zero-diagonal Gram matrices."""
    inner = pair + outer / ((n - 1) * (n - 2)) - 2 * product / (n - 2)
    return inner / (n * (n - 3))


def squares(values: np.ndarray, n: int) -> np.ndarray:
    """Return symmetric matrices with zero diagonal from upper triangles, [layers, n, n].

    >>> squares(np.array([[1.0, 2.0, 3.0]]), 3)[0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]]
    """
    gram = np.zeros((len(values), n, n))
    row, col = np.triu_indices(n, 1)
    gram[:, row, col] = gram[:, col, row] = values
    return gram
