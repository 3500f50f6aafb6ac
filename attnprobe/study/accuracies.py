"""Accuracies of a study, and statements about them.

Over seeds, differences carry Welch's interval, or the paired t interval where one training is
fine-tuned twice. With one seed the interval is over test images, each accuracy counted as
independent of the others although they share the images, which makes it too wide, not too narrow.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from attnprobe.claims import CONTRADICTED, SUPPORTED
from attnprobe.comparison.deciding import decided
from attnprobe.study import intervals
from attnprobe.study.folder import Study
from attnprobe.study.judging import (
    CONFIDENCE,
    IMAGES,
    OPEN,
    SEEDS,
    Judgement,
    absent,
    counted,
    verdict,
)
from attnprobe.study.settings import METHODS, SCORES

MINUS = "\N{MINUS SIGN}"


def by_seed(study: Study, method: str, score: str, dropped: int = 0) -> pd.DataFrame:
    """Return seed, value and images of one accuracy, ascending by seed."""
    frame = study.scores
    chosen = (frame["method"] == method) & (frame["score"] == score)
    part = frame.loc[chosen & (frame["dropped"] == dropped), ["seed", "value", "images"]]
    latest = part.drop_duplicates("seed", keep="last")  # of a study that was trained further
    return latest.sort_values("seed").reset_index(drop=True)


def more(study: Study, score: str, methods: tuple[str, str], limit: float = 0.0) -> Judgement:
    """Judge whether one method's accuracy less another's lies above a limit.

    Args:
        study: The study.
        score: Which accuracy.
        methods: The first less the second.
        limit: What the difference has to exceed.
    """
    held = [by_seed(study, method, score) for method in methods]
    for method, rows in zip(methods, held, strict=True):
        if rows.empty:
            return absent(f"there is no accuracy of {METHODS[method]} ({SCORES[score].lower()})")
    over = SEEDS if min(map(len, held)) > 1 else IMAGES
    held = held if over == SEEDS else [rows.head(1) for rows in held]
    a, b = (rows["value"].to_numpy(float) for rows in held)
    images = _images(held)
    if over == SEEDS:
        ends = intervals.of_difference(a, b)
    else:
        ends = over_images([a[0], b[0]], images, CONFIDENCE)
    words = f"{percent(a.mean())} against {percent(b.mean())}, difference "
    judged = _judged(words, float(a.mean() - b.mean()), ends, limit, over)
    return _based(judged, images, held)


def drop_costs_little(study: Study, method: str, limit: float) -> Judgement:
    """Judge whether fine-tuning without the last blocks keeps the accuracy, for each number."""
    return _dropped(study, method, limit, below=False)


def drop_costs(study: Study, method: str, limit: float) -> Judgement:
    """Judge whether fine-tuning without the last blocks loses accuracy, for each number.

    Args:
        study: The study.
        method: Whose encoders are fine-tuned.
        limit: What the accuracy with all blocks, taken from the one without some, lies below.
    """
    return _dropped(study, method, limit, below=True)


def costs_more(study: Study, methods: tuple[str, str]) -> Judgement:
    """Judge whether dropping the most blocks costs the first method more than the second."""
    found = [changes(study, method) for method in methods]
    for method, (_, values) in zip(methods, found, strict=True):
        if not values.size:
            return absent(_without(method))
    a, b = (-values[:, -1] for _, values in found)
    over = SEEDS if min(len(a), len(b)) > 1 else IMAGES
    rows = [
        rows.loc[rows["seed"].isin(seeds)].head(len(seeds) if over == SEEDS else 1)
        for method, (seeds, _) in zip(methods, found, strict=True)
        for rows in (by_seed(study, method, "finetuned", k) for k in (0, max(_numbers(study))))
    ]
    if over == SEEDS:
        ends = intervals.of_difference(a, b)
    else:
        a, b = a[:1], b[:1]
        ends = over_images(_firsts(rows), _images(rows), CONFIDENCE)
    words = f"{points(a.mean())} lost against {points(b.mean())}, difference "
    judged = _judged(words, float(a.mean() - b.mean()), ends, 0.0, over)
    return _based(judged, _images(rows), [a, b])


def changes(study: Study, method: str) -> tuple[list[int], np.ndarray]:
    """Return seeds, and accuracy without some blocks less that with all, [seeds, numbers].

    Of the seeds that were fine-tuned with every number of dropped blocks.
    """
    each = [
        by_seed(study, method, "finetuned", dropped).set_index("seed")["value"]
        for dropped in (0, *_numbers(study))
    ]
    whole = pd.concat(each, axis=1, join="inner").sort_index().astype(float)
    table = whole.to_numpy()
    return [int(seed) for seed in whole.index], table[:, 1:] - table[:, :1]


def over_images(values: Sequence[float], images: np.ndarray, confidence: float) -> np.ndarray:
    """Return the interval of a - b, or of (a - b) - (c - d), over test images, [2].

    Variances are binomial with one success and one failure added (Agresti and Caffo 2000), so
    that accuracies of 0 and 1 have one too. NaN where the number of images is not known.
    """
    if np.isnan(images).any():
        return np.full(2, np.nan)
    p = np.asarray(values, float)
    signs = np.array([1, -1, -1, 1][: len(p)])
    shrunk = (p * images + 1) / (images + 2)
    spread = np.sqrt((shrunk * (1 - shrunk) / (images + 2)).sum())
    reach = float(ndtri((1 + confidence) / 2)) * spread
    return (signs * p).sum() + np.array([-reach, reach])


def percent(value: float) -> str:
    """Return an accuracy for readers.

    >>> percent(0.4567)
    '45.7 %'
    """
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Return a difference of accuracies in percentage points.

    >>> points(0.0123)
    '+1.2 points'
    """
    return f"{_signed(100 * value, '.1f')} points"


def _dropped(study: Study, method: str, limit: float, *, below: bool) -> Judgement:
    numbers = _numbers(study)
    seeds, values = changes(study, method)
    if not values.size:
        return absent(_without(method))
    over = SEEDS if len(seeds) > 1 else IMAGES
    levels = (CONFIDENCE, 1 - (1 - CONFIDENCE) / len(numbers))
    rows = [by_seed(study, method, "finetuned", dropped) for dropped in (0, *numbers)]
    held = [part.loc[part["seed"].isin(seeds)] for part in rows]
    if over == SEEDS:
        narrow, wide = (intervals.of_mean(values, level) for level in levels)
    else:
        narrow, wide = (
            np.stack([_one_seed(part, held[0], level) for part in held[1:]], axis=1)
            for level in levels
        )
    told = _told(over, _images(held), [seeds])
    means = values.mean(0)
    each = [
        f"{number} dropped: {points(mean)}{_bracket(low, high)}"
        for number, mean, low, high in zip(numbers, means, *narrow, strict=True)
    ]
    words = f"{percent(held[0]['value'].mean())} with all blocks; {'; '.join(each)}. {told}"
    if np.isnan(narrow).any():
        return Judgement(OPEN, words, limit=limit, over=over, seeds=str(len(seeds)))
    parts = [f"{number} dropped" for number in numbers]
    found = decided(means, (narrow, wide), parts, limit, below=below)
    ruling = verdict(
        holds=found.verdict == SUPPORTED, fails=found.verdict == CONTRADICTED, over=over
    )
    return Judgement(
        ruling, words, found.value, found.low, found.high, limit, over, str(len(seeds))
    )


def _one_seed(part: pd.DataFrame, whole: pd.DataFrame, level: float) -> np.ndarray:
    both = [part.head(1), whole.head(1)]
    return over_images(_firsts(both), _images(both), level)


def _firsts(held: Sequence[pd.DataFrame]) -> list[float]:
    return [float(rows["value"].to_numpy()[0]) for rows in held]


def _images(held: Sequence[pd.DataFrame]) -> np.ndarray:
    return np.concatenate([rows["images"].to_numpy(float) for rows in held])


def _judged(words: str, value: float, ends: np.ndarray, limit: float, over: str) -> Judgement:
    """Judge whether a difference of accuracies lies above a limit."""
    low, high = (float(end) for end in ends)
    return Judgement(
        verdict(holds=low > limit, fails=high < limit, over=over),
        f"{words}{points(value)}{_bracket(low, high)}.",
        *(value, low, high, limit, over),
    )


def _based(judged: Judgement, images: np.ndarray, sides: Sequence[Any]) -> Judgement:
    """Add what the interval is over."""
    told = _told(judged.over, images, sides)
    seeds = ", ".join(str(len(side)) for side in sides)
    return replace(judged, measured=f"{judged.measured} {told}", seeds=seeds)


def _numbers(study: Study) -> list[int]:
    return sorted(number for number in study.settings["dropped"] if number > 0)


def _without(method: str) -> str:
    return f"{METHODS[method]} has not been fine-tuned with and without its last blocks"


def _told(over: str, images: np.ndarray, sides: Sequence[Any]) -> str:
    if over == SEEDS:
        return f"Interval over {counted([len(side) for side in sides])}."
    if np.isnan(images).any():
        return "One seed; the number of test images is not known, so there is no interval."
    return f"Interval over {images[0]:.0f} test images, one seed."


def _bracket(low: float, high: float) -> str:
    if np.isnan(low):
        return ""
    return f" [{_signed(100 * low, '.1f')}, {_signed(100 * high, '.1f')}]"


def _signed(value: float, form: str = ".2f") -> str:
    return f"{value:+{form}}".replace("-", MINUS)
