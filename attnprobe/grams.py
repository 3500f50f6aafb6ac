"""Gram matrices of two saved results side by side: what CKA between models is made from.

The same images in the same mini-batches make them comparable whatever the widths of the models.
"""

import numpy as np

from attnprobe import hsic
from attnprobe.errors import ResultError
from attnprobe.results import Result


def comparable(a: Result, b: Result) -> bool:
    """Whether both results keep Gram matrices of the same mini-batches."""
    sides = [result.arrays.get("grams") for result in (a, b)]
    if sides[0] is None or sides[1] is None:
        return False
    return np.array_equal(sides[0]["sizes"], sides[1]["sizes"])


def joint_samples(a: Result, b: Result) -> np.ndarray:
    """Return HSIC pseudo-values over the layers of a, then of b, [images, layers, layers].

    Images of a mini-batch that is too small for them get the mean of the others.
    """
    sides = [_parts(result) for result in (a, b)]
    found, start = [], 0
    for size in sides[0][1]:
        stop = start + size * (size - 1) // 2
        triangles = np.concatenate([values[:, start:stop] for values, _ in sides])
        if size >= hsic.SMALLEST:
            found.append(hsic.pseudo_values(hsic.squares(triangles, size)))
        start = stop
    samples = np.concatenate(found)
    silent = sum(size for size in sides[0][1] if size < hsic.SMALLEST)
    return np.concatenate([samples, np.repeat(samples.mean(0)[None], silent, axis=0)])


def _parts(result: Result) -> tuple[np.ndarray, list[int]]:
    """Return upper triangles [layers, pairs] and mini-batch sizes, after checking them."""
    kept = result.arrays["grams"]
    values, sizes = kept["values"], kept["sizes"].astype(int).tolist()
    pairs = sum(size * (size - 1) // 2 for size in sizes)
    sound = values.ndim == 2 and values.shape == (len(result.layers), pairs)
    if not sound or sum(sizes) != len(result.images) or not np.isfinite(values).all():
        raise ResultError(
            f"the Gram matrices of {result.name} do not fit its layers and images",
            "measure the model again",
        )
    return values, sizes
