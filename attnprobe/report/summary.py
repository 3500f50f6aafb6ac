"""A page's opening paragraph, put together from the numbers and judging none of them."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from attnprobe.frames import known, layer_means, rows
from attnprobe.results import Result

DIGITS = (3, 4, 5, 6)  # significant ones: as few as keep two layers apart


def sentences(result: Result) -> list[str]:
    """What was measured and the range of each metric over the layers.

    Every number is read from the tables; a metric that was not measured has no sentence.
    """
    return [text for part in (_measured, _means, _pairs, _brackets) for text in part(result)]


def _measured(result: Result) -> Iterator[str]:
    heads = sorted({row.heads for row in rows(result.layers)})
    span = f"{heads[0]}" if len(heads) == 1 else f"{heads[0]} to {heads[-1]}"
    images = result.provenance.images
    yield (
        f"{_count(len(result.layers), 'attention layer')} of {_count(span, 'head')} "
        f"were measured on {_count(images, 'image')}."
    )


def _means(result: Result) -> Iterator[str]:
    for metric, write in WRITERS.items():
        means = list(rows(layer_means(result, metric)))
        if means and (text := write(means)):
            yield text


def _distance(means: list[Any]) -> str:
    first, last = means[0], means[-1]
    text = f"Averaged over heads, a patch attends {_near(first)} {first.unit} away in "
    text += f"layer {first.layer + 1}"
    if len(means) > 1:
        text += f" and {_near(last)} {last.unit} in layer {last.layer + 1}"
    parts = [
        f"{100 * row.fraction:.0f} %" for row in dict.fromkeys((first, last)) if row.fraction > 0
    ]
    if parts:
        text += f" ({' and '.join(parts)} of what uniform attention would give)"
    low, high = min(row.head_min for row in means), max(row.head_max for row in means)
    return text + f"; single heads range from {_short(low)} to {_short(high)} {first.unit}."


def _entropy(means: list[Any]) -> str:
    return _ranked(
        means,
        "Attention is most focused in layer {low} (mean entropy {low_value}) and most spread out "
        "in layer {high} ({high_value}).",
        "entropy",
    )


def _diversity(means: list[Any]) -> str:
    return _ranked(
        means,
        "The heads of a layer differ most in layer {high} (mean divergence {high_value}) and "
        "least in layer {low} ({low_value}).",
        "divergence between heads",
    )


def _prefix(means: list[Any]) -> str:
    return _ranked(
        means,
        "Patches give prefix tokens the largest share of their attention in layer {high} "
        "({high_value}) and the smallest in layer {low} ({low_value}).",
        "attention on prefix tokens",
    )


def _ranked(means: list[Any], form: str, quantity: str) -> str:
    """Name the lowest and the highest layer, but only if their intervals are disjoint.

    Says instead that no two layers can be told apart where that is so, and nothing in between.
    """
    bounded = [row for row in means if not (pd.isna(row.low) or pd.isna(row.high))]
    if len(bounded) < len(means) or len(means) < 2:
        return ""
    low, high = _extremes(means)
    digits = next((n for n in DIGITS if _apart(low.high, high.low, n)), None)
    if digits is not None:
        return form.format(
            low=low.layer + 1,
            high=high.layer + 1,
            low_value=_with_unit(low, digits),
            high_value=_with_unit(high, digits),
        )
    overlap = max(row.low for row in means) <= min(row.high for row in means)
    return f"No two layers differ in mean {quantity} by more than their intervals." * overlap


def _apart(below: float, above: float, digits: int) -> bool:
    """Whether two ends are in this order, also once they are rounded."""
    return float(_short(below, digits)) < float(_short(above, digits))


def _with_unit(row: Any, digits: int) -> str:
    return _near(row, digits) + (f" {row.unit}" if row.unit in ("nats", "bits") else "")


WRITERS: dict[str, Callable[[list[Any]], str]] = {
    "distance": _distance,
    "entropy": _entropy,
    "head_kl": _diversity,
    "prefix_mass": _prefix,
}


def _pairs(result: Result) -> Iterator[str]:
    cka = result.tables.get("cka")
    if cka is None or cka.empty or len(result.layers) < 2:
        return
    pairs = list(rows(known(cka, "value")))
    ends = min(r.layer_a for r in pairs), max(r.layer_a for r in pairs)
    for row in pairs:
        if (row.layer_a, row.layer_b) == ends:
            yield f"The outputs of the first and the last layer have a CKA of {_near(row)}."


def _brackets(result: Result) -> Iterator[str]:
    tables = [table for table in result.tables.values() if "low" in table and not table.empty]
    if any(not known(table, "low").empty for table in tables):
        yield "Brackets hold 95 % intervals over images."


def _extremes(means: list[Any]) -> tuple[Any, Any]:
    ordered = sorted(means, key=lambda row: row.value)
    return ordered[0], ordered[-1]


def _near(row: Any, digits: int = DIGITS[0]) -> str:
    if pd.isna(row.low) or pd.isna(row.high):
        return _short(row.value, digits)
    ends = f"[{_short(row.low, digits)}, {_short(row.high, digits)}]"
    return f"{_short(row.value, digits)} {ends}"


def _short(value: float, digits: int = DIGITS[0]) -> str:
    """Some significant digits, trailing zeros kept.

    >>> _short(69.0), _short(114.4), _short(5.2765, 4)
    ('69.0', '114', '5.277')
    """
    return f"{value:#.{digits}g}".rstrip(".")


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"
