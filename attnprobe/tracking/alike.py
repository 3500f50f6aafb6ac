"""Whether two checkpoints were measured so that their numbers stand on one axis."""

from typing import Any

from attnprobe.errors import ResultError
from attnprobe.results import Result

FACTS = ("metric", "unit", "definition")


def check_alike(first: Result, other: Result) -> None:
    """Refuse two results that were measured differently, or are of different models.

    Raises:
        ResultError: They differ in images, layers, heads, metrics or definitions.
    """
    pair = f"{called(first)} and {called(other)}"
    if _images(first) != _images(other):
        counts = f"{len(first.images)} and {len(other.images)}"
        raise ResultError(
            f"{pair} were measured on different images ({counts} of them)",
            "measure every checkpoint with the same -i and --limit",
        )
    sizes = [_layers(result) for result in (first, other)]
    if sizes[0] != sizes[1]:
        depths = " and ".join(f"{len(size)} layers of {_span(size)} heads" for size in sizes)
        raise ResultError(
            f"{pair} have different layers ({depths})",
            "give checkpoints of one training run; models of different shape are for comparisons",
        )
    gap = sorted(set.symmetric_difference(*(_conventions(result) for result in (first, other))))
    if gap:
        raise ResultError(
            f"{pair} were measured differently: {'; '.join(': '.join(item) for item in gap[:2])}",
            "measure every checkpoint with the same metrics and conventions",
        )


def called(result: Result) -> str:
    """Return the name of a result for messages, with the file it came from."""
    source = str(result.model.get("source", ""))
    return f"{result.name} ({source})" if source not in ("", result.name) else result.name


def _images(result: Result) -> tuple[str, list[Any]]:
    return result.provenance.images_sha256, result.images["id"].tolist()


def _layers(result: Result) -> list[int]:
    return result.layers["heads"].astype(int).tolist()


def _span(heads: list[int]) -> str:
    least, most = min(heads, default=0), max(heads, default=0)
    return f"{least}" if least == most else f"{least} to {most}"


def _conventions(result: Result) -> set[tuple[str, ...]]:
    """Return each metric with its unit and definition."""
    means = result.tables["layer_means"]
    if means.empty:
        return set()
    rows = means[list(FACTS)].astype(str).drop_duplicates().itertuples(index=False)
    return {tuple(row) for row in rows}
