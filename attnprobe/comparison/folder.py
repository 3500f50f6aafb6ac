"""A saved comparison: its models' runs, its options, and its tables for others to read."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.comparison.options import CompareOptions
from attnprobe.errors import ResultError
from attnprobe.results import MANIFEST, Result, check_output, collection

if TYPE_CHECKING:
    from attnprobe.comparison import Comparison

KIND = "comparison"


def save(
    comparison: "Comparison", folder: Path, *, overwrite: bool, files: collection.Files
) -> Path:
    """Write a comparison with its runs and return its resolved path.

    Raises:
        OutputError: The folder exists (and `overwrite` is false) or cannot be written.
    """
    path = check_output(folder, overwrite=overwrite)
    collection.begin(path, KIND)
    runs = []
    for number, result in enumerate(comparison.results, start=1):
        runs.append(collection.run_name(number, result.name))
        result.save(path / collection.RUNS / runs[-1])
    finish(comparison, path, runs, files)
    return path


def finish(
    comparison: "Comparison", path: Path, runs: Sequence[str], files: collection.Files
) -> None:
    """Write what stands beside the runs, the finished manifest last.

    Args:
        comparison: The comparison.
        path: Its folder, which holds the runs.
        runs: Names of the run folders, in the order of the models.
        files: Configuration and texts; the tables are the comparison's own.

    Raises:
        OutputError: It cannot be written.
    """
    content = {
        "runs": list(runs),
        "names": [result.name for result in comparison.results],
        "options": comparison.options.flat(),
    }
    collection.finish(path, KIND, content, files)


def files_of(
    comparison: "Comparison", texts: dict[str, str], config: dict[str, Any]
) -> collection.Files:
    """Return what stands beside the runs of a comparison."""
    tables = comparison.tables
    summaries = {"verdicts.csv": tables["verdicts"], "summary.csv": tables["overall"]}
    return collection.Files(tables, summaries, config, texts)


def load(folder: Path) -> tuple[list[Result], CompareOptions]:
    """Return the results and options of a saved comparison.

    Raises:
        ResultError: The folder holds no comparison, or an unfinished, damaged or newer one.
    """
    found = collection.read(folder, KIND)
    if not found.get("finished"):
        raise ResultError(
            f"{folder} holds a comparison that was interrupted",
            "finish it with the same `attnprobe compare` command and --resume",
        )
    try:
        runs, names = found["runs"], found["names"]
        collection.check_names(runs)
        _check_labels(names, len(runs))
        known = {item.name for item in fields(CompareOptions)}
        options = CompareOptions(**{k: v for k, v in found["options"].items() if k in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultError(
            f"{folder / MANIFEST} is damaged: {error!r}", "run the comparison again"
        ) from error
    loaded = [Result.load(folder / collection.RUNS / name) for name in runs]
    return [replace(each, name=name) for each, name in zip(loaded, names, strict=True)], options


def _check_labels(names: Any, count: int) -> None:
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{names!r:.60} are no names of {count} models")
