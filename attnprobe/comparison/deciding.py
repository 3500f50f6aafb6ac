"""Hold numbers with intervals against a limit: one rule for every verdict.

A quantity of several parts, such as layers, is supported if each part's interval lies on the
claimed side (an intersection-union test, which needs no correction), and contradicted if some
part's interval, widened for the number of parts (Bonferroni), lies on the other side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnprobe.claims import CONTRADICTED, SUPPORTED, UNDECIDED

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


def decided(
    value: np.ndarray,
    intervals: tuple[np.ndarray, np.ndarray],
    parts: Sequence[str],
    limit: float,
    *,
    below: bool,
) -> Judged:
    """Hold every part of a quantity against a limit, given its intervals.

    Args:
        value: The judged values, [parts].
        intervals: Their lower and upper ends [2, parts]: each at the stated coverage, and each
            widened for the number of parts.
        parts: What each is about.
        limit: What they are held against.
        below: Whether they have to lie below it, rather than above.
    """
    narrow, wide = intervals
    sign = 1 if below else -1
    # the end of each interval that has to clear the limit, and the one that would refute it
    holds = sign * (narrow[1] if below else narrow[0]) < sign * limit
    fails = sign * (wide[0] if below else wide[1]) > sign * limit
    verdict = SUPPORTED if holds.all() else CONTRADICTED if fails.any() else UNDECIDED
    ends = narrow if verdict == SUPPORTED else wide
    at = _decisive(sign * ends, holds, fails)
    text = numbers(value[at], ends[0, at], ends[1, at], limit)
    if len(value) > 1:
        side = "below" if below else "above"
        widened = "" if verdict == SUPPORTED else f" (widened for {len(value)} layers)"
        text = (
            f"{holds.sum()} of {len(value)} layers lie {side} {limit:g}; "
            f"{parts[at]} has {text}{widened}"
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


def numbers(value: float, low: float, high: float, limit: float = 0.0) -> str:
    """Write an interval with as many digits as show on which side of the limit it lies."""
    digits = next((n for n in DIGITS if _sides(low, high, limit, n)), DIGITS[-1])
    return f"{short(value, digits)} [{short(low, digits)}, {short(high, digits)}]"


def _sides(low: float, high: float, limit: float, digits: int) -> bool:
    """Whether both ends are on their side of the limit, also once they are rounded."""
    rounded = [np.sign(float(short(end, digits)) - limit) for end in (low, high)]
    return rounded == [np.sign(low - limit), np.sign(high - limit)]


def short(value: float, digits: int = DIGITS[0]) -> str:
    """Write a number with some significant digits.

    >>> short(0.12345)
    '0.123'
    """
    return f"{value:.{digits}g}"
