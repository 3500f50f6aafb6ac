"""What a reader of a comparison has to know about how the models were measured."""

from collections.abc import Iterable, Sequence
from typing import Any

from attnprobe import samples
from attnprobe.comparison.differences import METRICS
from attnprobe.grams import comparable
from attnprobe.results import Result

FEW = 30  # images below which intervals are known to be rough


def notes(results: Sequence[Result]) -> list[str]:
    """Return sentences about differences in input, precision and what is missing."""
    parts = (_inputs, _masks, _windows, _precisions, _missing, _images)
    return [text for part in parts for text in part(results)]


def _inputs(results: Sequence[Result]) -> Iterable[str]:
    sizes = _by_value(results, lambda r: " x ".join(map(str, r.model.get("input_size", [])[-2:])))
    if len(sizes) > 1:
        yield (
            f"The models see the images at different sizes ({_listed(sizes, ' px')}): distances in "
            "pixels and entropies in nats differ for that reason alone, so compare them as parts "
            "of what uniform attention would give."
        )
    crops = _by_value(results, lambda r: r.model.get("crop_pct"))
    if len(crops) > 1:
        yield f"The models see different crops of each image ({_listed(crops)} of its side)."


def _masks(results: Sequence[Result]) -> Iterable[str]:
    found = _by_value(results, lambda r: r.provenance.transform.get("mask", "whole images"))
    if len(found) > 1:
        yield (
            f"The models were shown different parts of the images ({_listed(found)}). Dropped "
            "patches leave fewer keys, so compare distances and entropies as parts of what "
            "uniform attention would give."
        )
    elif "whole images" not in found:
        yield f"The models were shown masked images: {next(iter(found))}."


def _windows(results: Sequence[Result]) -> Iterable[str]:
    windowed = [r.name for r in results if max(r.layers["window_rows"], default=0) > 0]
    if 0 < len(windowed) < len(results):
        yield (
            f"{', '.join(windowed)}: attention in windows. Parts of what uniform attention would "
            "give, which verdicts use, say how local attention is within its windows; pixels say "
            "how far it reaches."
        )


def _precisions(results: Sequence[Result]) -> Iterable[str]:
    found = _by_value(results, lambda r: r.provenance.precision)
    if len(found) > 1:
        yield (
            f"The forward passes ran in different precisions ({_listed(found)}), so differences "
            "under 1 % of a value count as none."
        )
    elif any(result.provenance.deviation for result in results):
        yield (
            f"The forward passes ran in {next(iter(found))}; differences under what that changed "
            "of a metric on the first images (1 % at most) count as none."
        )


def _missing(results: Sequence[Result]) -> Iterable[str]:
    for metric in METRICS:
        without = [result.name for result in results if not samples.has(result, metric)]
        if without:
            yield f"{', '.join(without)}: no per-image values of {metric}, so it is not compared."
    if not all(comparable(results[0], other) for other in results[1:]):
        yield (
            "CKA between models is missing: it needs results measured with cka, the unbiased "
            "estimator and one size of mini-batch."
        )


def _images(results: Sequence[Result]) -> Iterable[str]:
    images = results[0].provenance.images
    if images < FEW:
        yield f"{images} images are few: intervals are approximate below about {FEW}."


def _by_value(results: Sequence[Result], value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(str(value(result)), []).append(result.name)
    return found


def _listed(found: dict[str, list[str]], unit: str = "") -> str:
    return "; ".join(f"{', '.join(names)}: {value}{unit}" for value, names in found.items())
