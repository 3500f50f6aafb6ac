"""Whether encoders that keep their head diversity lose more when their last blocks are dropped."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from attnprobe.claims import Claim
from attnprobe.comparison.deciding import short
from attnprobe.study.accuracies import changes, points
from attnprobe.study.folder import Study
from attnprobe.study.judging import (
    CONFIDENCE,
    OPEN,
    RUNS,
    Judgement,
    absent,
    quantities,
    verdict,
)
from attnprobe.study.settings import METHODS

Points = dict[str, np.ndarray]


def relation(study: Study, claim: Claim, methods: Sequence[str]) -> Judgement:
    """Judge whether diversity kept and accuracy lost rise together among runs of one method.

    Methods differ in more than diversity, so that the correlation over all runs is told but does
    not decide; the one within methods does (a partial correlation, with Fisher's interval).

    Args:
        study: The study.
        claim: Whose quantity says how much diversity is kept.
        methods: Those whose blocks are dropped.
    """
    held = {method: _points(study, claim, method) for method in methods}
    held = {method: rows for method, rows in held.items() if len(rows)}
    if not held:
        return absent("no run has both its attention and its dropped blocks measured")
    count = sum(map(len, held.values()))
    words = [
        f"{METHODS[method]}: {short(kept)} of the diversity kept, {points(lost)} lost"
        for method, (kept, lost) in ((m, rows.mean(0)) for m, rows in held.items())
    ]
    within = np.concatenate([rows - rows.mean(0) for rows in held.values()])
    whole = np.concatenate(list(held.values()))
    if len(held) > 1 and count > 2 and _varies(whole):  # of two it is 1 or -1
        words.append(f"correlation over all {count} runs {_correlation(whole):+.2f}")
    freedom = count - (len(held) - 1) - 3
    seeds = ", ".join(str(len(rows)) for rows in held.values())
    if freedom < 1 or not _varies(within):
        words.append("too few runs for an interval within methods")
        return Judgement(OPEN, f"{'; '.join(words)}.", limit=0.0, over=RUNS, seeds=seeds)
    r = _correlation(within)
    low, high = _fisher(r, freedom)
    words.append(f"within methods {r:+.2f} [{low:+.2f}, {high:+.2f}]")
    return Judgement(
        verdict(holds=low > 0, fails=high < 0, over=RUNS),
        f"{'; '.join(words)}. Interval over {count} runs.",
        *(r, low, high, 0.0, RUNS, seeds),
    )


def _points(study: Study, claim: Claim, method: str) -> np.ndarray:
    """Return diversity kept and accuracy lost by the most dropped blocks, [runs, 2]."""
    kept = quantities(study, claim, method)
    seeds, values = changes(study, method)
    found = [
        (kept[seed], -row[-1])
        for seed, row in zip(seeds, values, strict=True)
        if seed in kept and len(row)
    ]
    return np.array(found, dtype=float).reshape(-1, 2)


def _varies(points: np.ndarray) -> bool:
    return bool((np.ptp(points, axis=0) > 1e-12).all())


def _correlation(points: np.ndarray) -> float:
    return float(np.corrcoef(points.T)[0, 1])


def _fisher(r: float, freedom: int) -> tuple[float, float]:
    """Return the interval of a correlation; `freedom` is the number of runs less 3 or more."""
    reach = float(ndtri((1 + CONFIDENCE) / 2)) / np.sqrt(freedom)
    centre = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return float(np.tanh(centre - reach)), float(np.tanh(centre + reach))
