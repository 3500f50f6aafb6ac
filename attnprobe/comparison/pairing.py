"""Which results may be compared: same images, same definitions, labels that tell them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from attnprobe.errors import ResultError
from attnprobe.results import Result
from attnprobe.types import MASKED

FEWEST, MOST = 2, 8
PAIRED = ("distance", "entropy", "head_kl", "prefix_mass", "cka")


def checked(results: Sequence[Result]) -> tuple[Result, ...]:
    """Return results that can be compared, under labels that differ.

    Raises:
        ResultError: They are too few or too many, or differ in images or in conventions.
    """
    if not FEWEST <= len(results) <= MOST:
        raise ResultError(
            f"a comparison takes {FEWEST} to {MOST} models, not {len(results)}",
            "choose the models that matter most",
        )
    first = results[0]
    for other in results[1:]:
        _check_images(first, other)
        for metric in PAIRED:
            _check_definition(first, other, metric)
    return labelled(results)


def labelled(results: Iterable[Result]) -> tuple[Result, ...]:
    """Number the results that share a name.

    >>> labelled([])
    ()
    """
    seen: dict[str, int] = {}
    renamed = []
    for result in results:
        name, count = result.name, seen.get(result.name, 0)
        while name in seen:
            count += 1
            name = f"{result.name} ({count + 1})"
        seen[result.name] = count
        seen.setdefault(name, 0)
        renamed.append(replace(result, name=name))
    return tuple(renamed)


def pairs(results: Sequence[Result]) -> list[tuple[int, int]]:
    """Return every pair of models by number, the earlier one first.

    >>> pairs([1, 2, 3])
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(combinations(range(len(results)), 2))


def _check_images(first: Result, other: Result) -> None:
    ours, theirs = first.provenance, other.provenance
    if ours.images_sha256 == theirs.images_sha256 and ours.images == theirs.images:
        return
    raise ResultError(
        f"{first.name} and {other.name} were measured on different images "
        f"({ours.images} with sha256 {ours.images_sha256[:12]}, "
        f"{theirs.images} with {theirs.images_sha256[:12]})",
        "measure both on the same images, in the same order and with the same --limit",
    )


def _check_definition(first: Result, other: Result, metric: str) -> None:
    ours, theirs = (_definition(result, metric) for result in (first, other))
    if ours and theirs and ours != theirs:
        raise ResultError(
            f"{metric} means different things in {first.name} ({ours}) and {other.name} ({theirs})",
            "measure both with the same conventions",
        )


def _definition(result: Result, metric: str) -> str:
    table = result.tables.get(metric)
    text = "" if table is None or table.empty else str(table["definition"].iloc[0])
    return text.partition(MASKED)[0]  # the same quantity, of other input: a note says so
