"""A track's opening sentences: what changed most, judged by intervals alone."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from attnprobe.frames import known, rows
from attnprobe.tracking import Track
from attnprobe.tracking.naming import between, quantity

MOST_NAMED = 4  # layers in one list
DIGITS = (3, 4, 5, 6)
MINUS = "\N{MINUS SIGN}"


def sentences(track: Track) -> list[str]:
    """Return what was measured, then one statement a metric."""
    return [" ".join(_measured(track, between(track))), *_changes(track)]


def _measured(track: Track, span: str) -> Iterator[str]:
    last = track.results[-1]
    heads = sorted({row.heads for row in rows(last.layers)})
    count = f"{heads[0]}" if len(heads) == 1 else f"{heads[0]} to {heads[-1]}"
    images = last.provenance.images
    yield (
        f"{len(track.steps)} checkpoints, {span}: {_count(len(last.layers), 'attention layer')} "
        f"of {_count(count, 'head')}, each measured on the same {_count(images, 'image')}."
    )
    changes = track.tables["changes"]
    if known(changes, "low", "high").empty:
        yield "There are no intervals, so that no change is judged."
        return
    yield (
        f"Changes are those from {span}; brackets hold 95 % intervals of the paired difference "
        "over images, one layer at a time."
    )


def _changes(track: Track) -> Iterator[str]:
    changes = known(track.tables["changes"], "change", "low", "high")
    for metric in changes["metric"].unique():
        words = quantity(str(metric))
        yield _change(words, list(rows(changes.loc[changes["metric"] == metric])))


def _change(subject: str, layers: list[Any]) -> str:
    """Name the layers that changed most: those whose intervals reach the largest one's."""
    apart = [row for row in layers if row.low > 0 or row.high < 0]
    if not apart:
        held = "its interval holds" if len(layers) == 1 else "their intervals hold"
        return f"{subject}: no change can be told in {_share(len(layers), len(layers))}; {held} 0."
    top = max(apart, key=lambda row: min(abs(row.low), abs(row.high)))
    least = min(abs(top.low), abs(top.high))
    rivals = [row for row in apart if max(abs(row.low), abs(row.high)) >= least]
    text = f"{subject} changed most in {_named([row.layer for row in rivals], len(layers))}"
    which = "" if len(rivals) == 1 else f", whose intervals overlap; in layer {top.layer + 1}"
    if len(rivals) == len(layers) > 1:
        text = f"{subject} changed in every layer, and in none more than in all others"
        which = f" (their intervals overlap); in layer {top.layer + 1}"
    return f"{text}{which}: {_from_to(top)}. {_directions(apart, len(layers))}"


def _from_to(row: Any) -> str:
    """The two values and the change, with digits enough to keep the ends of its interval apart."""
    ends = f"from {_short(row.value_first)} to {_short(row.value_last)}{_unit(row)}"
    forms = [[_short(value, "+", n) for value in (row.change, row.low, row.high)] for n in DIGITS]
    change, low, high = next((form for form in forms if len({*form}) == len(form)), forms[0])
    return f"{ends}, {change} [{low}, {high}]"


def _directions(apart: list[Any], layers: int) -> str:
    """Count the layers that rose, fell, and in which neither can be told."""
    rose = sum(row.low > 0 for row in apart)
    fell, left = len(apart) - rose, layers - len(apart)
    told = f", and no change can be told in {left}" if left else ""
    if rose and fell:
        return f"It fell in {_share(fell, layers)} and rose in {rose}{told}."
    return f"It {'rose' if rose else 'fell'} in {_share(len(apart), layers)}{told}."


def _share(count: int, layers: int) -> str:
    if count == layers:
        return {1: "the one layer", 2: "both layers"}.get(layers, f"all {layers} layers")
    return f"{count} of {layers} layers"


def _named(layers: list[int], of: int) -> str:
    """Name layers, counted from 1; a run of them by its ends, many by their number.

    >>> _named([2], 12), _named([0, 1, 4], 12), _named([3, 4, 5, 6, 7], 12)
    ('layer 3', 'layers 1, 2 and 5', 'layers 4 to 8')
    """
    shown = [str(layer + 1) for layer in sorted(layers)]
    if len(shown) == 1:
        return f"layer {shown[0]}"
    if len(shown) > 2 and max(layers) - min(layers) == len(layers) - 1:
        return f"layers {shown[0]} to {shown[-1]}"
    if len(shown) <= MOST_NAMED:
        return f"layers {', '.join(shown[:-1])} and {shown[-1]}"
    return _share(len(layers), of)


def _unit(row: Any) -> str:
    return f" {row.unit}" if row.unit in ("px", "tokens", "nats", "bits") else ""


def _short(value: float, sign: str = "", digits: int = DIGITS[0]) -> str:
    """Some significant digits with a true minus sign.

    >>> _short(0.1), _short(48.13, "+")
    ('0.100', '+48.1')
    """
    return f"{value:{sign}#.{digits}g}".rstrip(".").replace("-", MINUS)


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"


def skipped(track: Track) -> list[str]:
    """Return every image that could not be read, with the checkpoint it was skipped for."""
    pairs = [(result.name, text) for result in track.results for text in result.provenance.skipped]
    texts = {text for _, text in pairs}
    if all(len(result.provenance.skipped) == len(texts) for result in track.results):
        return sorted(texts)
    return [f"{name}: {text}" for name, text in pairs]


def provenance(track: Track) -> pd.DataFrame:
    """Return one row a checkpoint: what differs between them."""
    records = []
    for step, result in zip(track.steps, track.results, strict=True):
        facts = result.provenance
        record = {
            track.word: step,
            "label": result.name,
            "file": str(result.model.get("source", "")),
            "images": facts.images,
            "skipped": len(facts.skipped),
            "seconds": round(facts.seconds, 1),
            "created": facts.created,
            "device": facts.device,
            "weights sha256": facts.weights_sha256,
        }
        records.append(record)
    return pd.DataFrame(records)
