"""Judge every claim about every model and every pair, with the numbers that carry the verdict.

A claim about every layer is supported if each layer's interval lies on the claimed side (an
intersection-union test, which needs no correction), and contradicted if some layer's interval,
widened for the number of layers (Bonferroni), lies on the other side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from attnprobe import claims, samples, statistics
from attnprobe.claims import CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED, Claim, Quantity
from attnprobe.comparison.differences import resolution
from attnprobe.comparison.options import CompareOptions
from attnprobe.comparison.pairing import pairs
from attnprobe.results import Result

NOBODY = -1
DIGITS = (3, 4, 5, 6)


@dataclass(frozen=True)
class Judged:
    """A verdict and what carries it.

    Attributes:
        verdict: supported, contradicted or not decided.
        evidence: The numbers, in a sentence.
        value: The judged number; that of the decisive part where there are several.
        low: Lower end of its interval.
        high: Upper end.
        limit: What it was held against.
    """

    verdict: str
    evidence: str
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    limit: float = np.nan


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
            quantities[at] = _quantity(claim, (result,), limits)
            judged = _alone(quantities[at], claim, limits, options)
            words = claim.statement.format(a=result.name)
            yield _row(claim, limits, (at, NOBODY), judged) | {"statement": words}
    for a, b in pairs(results) if claim.versus or claim.between else ():
        names = {"a": results[a].name, "b": results[b].name}
        if claim.between is not None:
            found = _quantity(claim, (results[a], results[b]), limits)
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


def _quantity(
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
    value = quantity.estimate()
    draws = [options, replace(options, confidence=1 - (1 - options.confidence) / len(value))]
    narrow, wide = (
        np.stack(statistics.interval(quantity.samples, quantity.judged, **each.draws()))
        for each in draws
    )
    if np.isnan(narrow).any():
        images = len(quantity.samples)
        return Judged(UNDECIDED, f"{images} images are too few for an interval.", limit=limit)
    sign = 1 if claim.below else -1
    # the end of each interval that has to clear the limit, and the one that would refute it
    holds = sign * np.where(claim.below, narrow[1], narrow[0]) < sign * limit
    fails = sign * np.where(claim.below, wide[0], wide[1]) > sign * limit
    verdict = SUPPORTED if holds.all() else CONTRADICTED if fails.any() else UNDECIDED
    ends = narrow if verdict == SUPPORTED else wide
    at = _decisive(sign * ends, holds, fails)
    text = _numbers(value[at], ends[0, at], ends[1, at], limit)
    if len(value) > 1:
        side = "below" if claim.below else "above"
        widened = "" if verdict == SUPPORTED else f" (widened for {len(value)} layers)"
        text = (
            f"{holds.sum()} of {len(value)} layers lie {side} {limit:g}; "
            f"{quantity.parts[at]} has {text}{widened}"
        )
    else:
        text = f"{text} against a limit of {limit:g}"
    return Judged(verdict, f"{text}.", value[at], ends[0, at], ends[1, at], limit)


def _decisive(ends: np.ndarray, holds: np.ndarray, fails: np.ndarray) -> int:
    """Return the part that carries a verdict.

    Args:
        ends: Both ends of each interval, turned so that large values speak against the claim.
        holds: Which parts are on the claimed side.
        fails: Which parts are on the other side.
    """
    worst, best = ends.max(0), ends.min(0)
    if fails.any():
        return int(np.argmax(np.where(fails, best, -np.inf)))
    if holds.all():
        return int(np.argmax(worst))
    return int(np.argmax(np.where(holds, -np.inf, worst)))


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
    gap, joint = _difference(a, b)
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
    text = f"{_short(first)} against {_short(second)}, difference {_numbers(value, low, high)}."
    return Judged(verdict, text, value, low, high, margin)


def _difference(a: Quantity, b: Quantity) -> tuple[statistics.Statistic, np.ndarray]:
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


def _numbers(value: float, low: float, high: float, limit: float = 0.0) -> str:
    """Write an interval with as many digits as show on which side of the limit it lies."""
    digits = next((n for n in DIGITS if _sides(low, high, limit, n)), DIGITS[-1])
    return f"{_short(value, digits)} [{_short(low, digits)}, {_short(high, digits)}]"


def _sides(low: float, high: float, limit: float, digits: int) -> bool:
    """Whether both ends are on their side of the limit, also once they are rounded."""
    rounded = [np.sign(float(_short(end, digits)) - limit) for end in (low, high)]
    return rounded == [np.sign(low - limit), np.sign(high - limit)]


def _short(value: float, digits: int = DIGITS[0]) -> str:
    return f"{value:.{digits}g}"
