"""Hold what was measured against limits: over training seeds where there are two, else over images.

The rule is `RULE`, in words for readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attnprobe import claims, statistics
from attnprobe.claims import CONTRADICTED, MARGIN, SUPPORTED, Claim, Quantity, Thresholds, third
from attnprobe.comparison import CompareOptions
from attnprobe.comparison.deciding import decided, numbers, short
from attnprobe.comparison.differences import resolution
from attnprobe.comparison.verdicts import difference, quantity_of
from attnprobe.results import Result
from attnprobe.study import intervals
from attnprobe.study.folder import PROBES, Study
from attnprobe.study.settings import METHODS

HOLDS, FAILS = "holds", "does not hold"
ONE_HOLDS, ONE_FAILS = "holds for one seed", "does not hold for one seed"
OPEN, ABSENT = "not decided", "not measured"
VERDICTS = (HOLDS, ONE_HOLDS, FAILS, ONE_FAILS, OPEN, ABSENT)
SEEDS, IMAGES, RUNS = "seeds", "images", "runs"  # what an interval is over
CONFIDENCE = 0.95
RULE = (
    "A statement holds where the whole 95 % interval lies on the stated side of the limit, does "
    "not hold where it lies on the other side, and is not decided otherwise. Training again from "
    "another seed is what a finding has to survive, so the interval is over seeds (Student's or "
    "Welch's t) wherever there are two of each method. With one, it is over images, which say "
    "nothing of other seeds: such a verdict says “for one seed”."
)
Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Judgement:
    """A verdict and the numbers that carry it.

    Attributes:
        verdict: One of `VERDICTS`.
        measured: The numbers in words, and what their interval is over.
        value: The judged number; that of the decisive part where there are several.
        low: Lower end of its interval.
        high: Upper end.
        limit: What it was held against.
        over: What the interval is over: seeds, images or runs; empty without one.
        seeds: Seeds that were used of each method.
        evidence: The numbers of one method in words, without what the interval is over.
    """

    verdict: str
    measured: str
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    limit: float = np.nan
    over: str = ""
    seeds: str = ""
    evidence: str = ""


def absent(why: str) -> Judgement:
    """Return the verdict on what has not been measured."""
    return Judgement(ABSENT, f"{why[:1].upper()}{why[1:]}.")


def verdict(*, holds: bool, fails: bool, over: str) -> str:
    """Return the verdict on an interval that lies on the stated side, on the other, or on both.

    >>> verdict(holds=True, fails=False, over=IMAGES)
    'holds for one seed'
    """
    if holds:
        return ONE_HOLDS if over == IMAGES else HOLDS
    if fails:
        return ONE_FAILS if over == IMAGES else FAILS
    return OPEN


def alone(study: Study, claim: Claim, method: str) -> Judgement:
    """Hold a claim's quantity of one method against the claim's limit.

    Args:
        study: The study.
        claim: The claim; its `below` says on which side of the limit the quantity has to lie.
        method: Whose encoders.
    """
    results = study.results(method)
    if not results:
        return absent(f"no encoder of {METHODS[method]} has been measured")
    limits = limits_of(claim, results[0])
    found = _quantities(claim, results, limits)
    if isinstance(found, str):
        return absent(found)
    first, limit = found[0], limits[claim.limit]
    values = np.stack([quantity.estimate() for quantity in found])  # [seeds, parts]
    over = SEEDS if len(found) > 1 else IMAGES
    ends = _ends(values, first)
    told = _told(study, over, (len(found),), results[0])
    if np.isnan(ends).any():
        known = f"{', '.join(map(short, values.mean(0)))}; {_why(over, results[0])}."
        return Judgement(OPEN, known, limit=limit, seeds=str(len(found)), evidence=known)
    judged = decided(values.mean(0), ends, first.parts, limit, below=claim.below)
    return Judgement(
        verdict(holds=judged.verdict == SUPPORTED, fails=judged.verdict == CONTRADICTED, over=over),
        f"{judged.evidence} {told}",
        *(judged.value, judged.low, judged.high, limit, over, str(len(found)), judged.evidence),
    )


def beside(study: Study, claim: Claim, method: str, control: str) -> Judgement:
    """Judge one method as `alone` does, and tell what another has by the same limit."""
    judged, other = (alone(study, claim, one) for one in (method, control))
    if ABSENT in (judged.verdict, other.verdict):
        return judged
    alike = (judged.over, judged.seeds) == (other.over, other.seeds)
    numbers_ = other.evidence if alike else other.measured  # with what its interval is over
    told = f"{judged.measured} {METHODS[control]}, by the same limit: {numbers_}"
    return replace(judged, measured=told)


def between(study: Study, claim: Claim, methods: tuple[str, str]) -> Judgement:
    """Hold the difference of two methods' quantities against zero.

    Args:
        study: The study.
        claim: The claim; its `below` says on which side of zero the difference has to lie.
        methods: The first less the second.
    """
    held = [study.results(method) for method in methods]
    for method, results in zip(methods, held, strict=True):
        if not results:
            return absent(f"no encoder of {METHODS[method]} has been measured")
    limits = limits_of(claim, held[0][0])
    sides: list[list[Quantity]] = []
    for results in held:
        found = _quantities(claim, results, limits)
        if isinstance(found, str):
            return absent(found)
        sides.append(found)
    over = SEEDS if min(map(len, sides)) > 1 else IMAGES
    sides = sides if over == SEEDS else [side[:1] for side in sides]
    a, b = (np.array([_summary(quantity) for quantity in side]) for side in sides)
    low, high = intervals.of_difference(a, b) if over == SEEDS else _over_images(sides)
    sizes = (abs(a.mean()), abs(b.mean()), sides[0][0].size, sides[1][0].size)
    margin = max(
        limits.get(claim.limit + MARGIN, 0.0), resolution(held[0][0], held[1][0]) * max(sizes)
    )
    sign = -1 if claim.below else 1
    told = _told(study, over, (len(a), len(b)), held[0][0])
    value = float(a.mean() - b.mean())
    return Judgement(
        verdict(
            holds=min(sign * low, sign * high) > margin,
            fails=max(sign * low, sign * high) < -margin,
            over=over,
        ),
        f"{short(a.mean())} against {short(b.mean())}, difference {_interval(value, low, high)}. "
        f"{told}",
        *(value, float(low), float(high), sign * margin, over, f"{len(a)}, {len(b)}"),
    )


def limits_of(claim: Claim, result: Result) -> Thresholds:
    """Return every limit; models of few layers have fewer last ones than the paper's three."""
    known = claims.defaults() | claim.thresholds
    return known | {"last": min(known["last"], third(len(result.layers)))}


def quantities(study: Study, claim: Claim, method: str) -> dict[int, float]:
    """Return the number by which a claim compares models, by seed; nothing where it has none."""
    found = {}
    for run in study.runs:
        if run.method == method and run.result is not None:
            one = quantity_of(claim, (run.result,), limits_of(claim, run.result))
            if not isinstance(one, str):
                found[run.seed] = _summary(one)
    return found


def counted(seeds: Sequence[int]) -> str:
    """Return numbers of seeds in words.

    >>> counted((3,)), counted((3, 3)), counted((3, 2))
    ('3 seeds', '3 seeds each', '3 and 2 seeds')
    """
    if len(seeds) == 1:
        return f"{seeds[0]} seeds"
    alike = len(set(seeds)) == 1
    return f"{seeds[0]} seeds each" if alike else f"{' and '.join(map(str, seeds))} seeds"


def _quantities(
    claim: Claim, results: Sequence[Result], limits: Thresholds
) -> list[Quantity] | str:
    """Return the quantity of every result, or why one of them has none."""
    found = [quantity_of(claim, (result,), limits) for result in results]
    whole = [quantity for quantity in found if not isinstance(quantity, str)]
    return whole if len(whole) == len(found) else next(q for q in found if isinstance(q, str))


def _summary(quantity: Quantity) -> float:
    return float(quantity.summary(quantity.estimate()[None])[0])


def _ends(values: np.ndarray, quantity: Quantity) -> Ends:
    """Return the interval of each part [2, parts], and the one widened for their number."""
    levels = (CONFIDENCE, 1 - (1 - CONFIDENCE) / len(quantity.parts))
    if len(values) > 1:
        return intervals.of_mean(values, levels[0]), intervals.of_mean(values, levels[1])
    narrow, wide = (
        np.stack(
            statistics.interval(
                quantity.samples,
                quantity.judged,
                **CompareOptions(confidence=level).draws(),
            )
        )
        for level in levels
    )
    return narrow, wide


def _over_images(sides: list[list[Quantity]]) -> np.ndarray:
    gap, joint = difference(sides[0][0], sides[1][0])
    return np.array(
        [float(end) for end in statistics.interval(joint, gap, **CompareOptions().draws())]
    )


def _interval(value: float, low: float, high: float) -> str:
    return f"{short(value)}, no interval" if np.isnan(low) else numbers(value, low, high)


def _why(over: str, result: Result) -> str:
    """Return why there is no interval."""
    if over == SEEDS:
        return "the seeds do not differ, so that there is no interval"
    return f"one seed, and {result.provenance.images} images are too few for an interval"


def _told(study: Study, over: str, seeds: Sequence[int], result: Result) -> str:
    where = " (attention of the last probe)" if study.source == PROBES else ""
    if over == SEEDS:
        return f"Interval over {counted(seeds)}{where}."
    return f"Interval over {result.provenance.images} images, one seed{where}."
