"""Judge every claim about every model and every pair, with the numbers that carry the verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from attnprobe import claims, samples, statistics
from attnprobe.claims import CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED, Claim, Quantity
from attnprobe.comparison.deciding import Judged, decided, numbers, short
from attnprobe.comparison.differences import resolution
from attnprobe.comparison.options import CompareOptions
from attnprobe.comparison.pairing import pairs
from attnprobe.results import Result

NOBODY = -1


def table(results: Sequence[Result], options: CompareOptions) -> pd.DataFrame:
    """Return one row a claim and model, and one a claim and pair of models."""
    limits = claims.thresholds(options.thresholds)
    rows = [
        row
        for claim in map(claims.load, claims.names())
        for row in _rows(claim, results, limits, options)
    ]
    return pd.DataFrame(rows)


def _rows(
    claim: Claim, results: Sequence[Result], limits: dict[str, float], options: CompareOptions
) -> Iterator[dict[str, Any]]:
    quantities = {}
    if claim.measure is not None:
        for at, result in enumerate(results):
            quantities[at] = quantity_of(claim, (result,), limits)
            judged = _alone(quantities[at], claim, limits, options)
            words = claim.statement.format(a=result.name)
            yield _row(claim, limits, (at, NOBODY), judged) | {"statement": words}
    for a, b in pairs(results) if claim.versus or claim.between else ():
        names = {"a": results[a].name, "b": results[b].name}
        if claim.between is not None:
            found = quantity_of(claim, (results[a], results[b]), limits)
            judged = _alone(found, claim, limits, options)
            yield _row(claim, limits, (a, b), judged) | {
                "statement": claim.statement.format(**names)
            }
        if claim.versus:
            margin = limits[claim.limit + MARGIN]
            fine = resolution(results[a], results[b])
            judged = _against(quantities[a], quantities[b], claim, options, (margin, fine))
            row = _row(claim, limits, (a, b), judged) | {"statement": claim.versus.format(**names)}
            yield row | {"quantity": claim.versus_quantity}


def _row(
    claim: Claim, limits: dict[str, float], models: tuple[int, int], judged: Judged
) -> dict[str, Any]:
    return {
        "claim": claim.name,
        "title": claim.title,
        "model_a": models[0],
        "model_b": models[1],
        "statement": "",
        **vars(judged),
        "quantity": claim.quantity.format(**limits),
        "source": claim.source,
    }


def quantity_of(
    claim: Claim, results: tuple[Result, ...], limits: dict[str, float]
) -> Quantity | str:
    """Return what is judged, or why it cannot be."""
    for result in results:
        absent = [name for name in claim.needs if not samples.has(result, name)]
        if absent:
            return f"{result.name} holds no per-image values of {absent[0]}"
    if len(results) == 2 and claim.between is not None:
        return claim.between(*results, limits)
    return claim.measure(results[0], limits) if claim.measure else "it is about two models"


def _alone(
    quantity: Quantity | str, claim: Claim, limits: dict[str, float], options: CompareOptions
) -> Judged:
    """Hold every part of a quantity against the limit."""
    if isinstance(quantity, str):
        return Judged(UNDECIDED, f"Not judged: {quantity}.")
    limit = limits[claim.limit]
    draws = [
        options,
        replace(options, confidence=1 - (1 - options.confidence) / len(quantity.parts)),
    ]
    narrow, wide = (
        np.stack(statistics.interval(quantity.samples, quantity.judged, **each.draws()))
        for each in draws
    )
    if np.isnan(narrow).any():
        images = len(quantity.samples)
        return Judged(UNDECIDED, f"{images} images are too few for an interval.", limit=limit)
    return decided(quantity.estimate(), (narrow, wide), quantity.parts, limit, below=claim.below)


def _against(
    a: Quantity | str,
    b: Quantity | str,
    claim: Claim,
    options: CompareOptions,
    least: tuple[float, float],
) -> Judged:
    """Hold the difference of two models' summaries against the margin around zero.

    Args:
        a: Quantity of the first model, or why it has none.
        b: Likewise for the second.
        claim: The claim.
        options: How to make intervals.
        least: Smallest difference that counts, and the resolution as a part of the values.
    """
    if isinstance(a, str) or isinstance(b, str):
        return Judged(UNDECIDED, f"Not judged: {a if isinstance(a, str) else b}.")
    gap, joint = difference(a, b)
    first, second = (float(side.summary(side.estimate()[None])[0]) for side in (a, b))
    low, high = (float(end) for end in statistics.interval(joint, gap, **options.draws()))
    value = first - second
    if np.isnan(low):
        return Judged(UNDECIDED, f"{len(joint)} images are too few for an interval.", value)
    # a difference of large values is measured no better than they are
    margin = max(least[0], least[1] * max(abs(first), abs(second), a.size, b.size))
    below, above = high < -margin, low > margin
    verdict = UNDECIDED
    if below or above:
        verdict = SUPPORTED if below == claim.below else CONTRADICTED
    text = f"{short(first)} against {short(second)}, difference {numbers(value, low, high)}."
    return Judged(verdict, text, value, low, high, margin)


def difference(a: Quantity, b: Quantity) -> tuple[statistics.Statistic, np.ndarray]:
    """Return summary(a) - summary(b) as a statistic of the paired per-image values."""
    flat = [side.samples.reshape(len(side.samples), -1) for side in (a, b)]
    cut = flat[0].shape[1]

    def of_means(means: np.ndarray) -> np.ndarray:
        parts = means[:, :cut], means[:, cut:]
        values = [
            side.summary(side.of_means(part.reshape(-1, *side.samples.shape[1:])))
            for side, part in zip((a, b), parts, strict=True)
        ]
        return values[0] - values[1]

    def valid(means: np.ndarray) -> np.ndarray:
        kept = np.ones(len(means), dtype=bool)
        for side, part in zip((a, b), (means[:, :cut], means[:, cut:]), strict=True):
            if side.statistic.valid is not None:
                kept &= side.statistic.valid(part.reshape(-1, *side.samples.shape[1:]))
        return kept

    least = max(a.statistic.min_images, b.statistic.min_images)
    joint = statistics.Statistic(of_means, min_images=least, valid=valid)
    return joint, np.concatenate(flat, axis=1)
