"""Results to one self-contained page that opens without a network.

`report` writes a single HTML file that carries its style, its script, plotly.js and every
number it shows. The page's content security policy forbids all requests.
"""

import os
import tempfile
from pathlib import Path

from attnprobe import study, traininglog
from attnprobe.comparison import Comparison
from attnprobe.errors import OutputError
from attnprobe.report import studypage, trackpage, trainpage
from attnprobe.report.comparing import render_comparison
from attnprobe.report.page import render
from attnprobe.results import Result
from attnprobe.results.manifest import kind_of
from attnprobe.tracking import Track
from attnprobe.traininglog import TrainingRun

__all__ = ["page_of", "render", "render_comparison", "report", "write"]


def report(
    subject: list[Result] | Comparison | Track | TrainingRun | study.Study | str | Path,
    path: str | Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Write one HTML page and return its path.

    Args:
        subject: One result, several side by side, a comparison, a track, a training run, a study,
            or the folder of any of them.
        path: The file to write.
        overwrite: Replace an older page there.

    Raises:
        OutputError: The file exists (and `overwrite` is false) or cannot be written.
        ResultError: There are no results, too many, some with different units, or a folder is
            damaged.
    """
    _check(Path(path), overwrite=overwrite)
    return write(_rendered(subject), path, overwrite=overwrite)


def page_of(folder: str | Path) -> str:
    """Return the page of what a folder holds: a result, comparison, track, training run or study.

    Raises:
        ResultError: It holds none of them, or a damaged one.
    """
    path = Path(folder)
    if study.is_study(path):
        return studypage.render(study.load(path))
    readers = {
        "comparison": lambda: render_comparison(Comparison.load(path)),
        "track": lambda: trackpage.render(Track.load(path)),
        traininglog.KIND: lambda: trainpage.render(traininglog.load(path)),
    }
    read = readers.get(kind_of(path))
    return read() if read else render([Result.load(path)])


def write(text: str, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a rendered page all-or-nothing and return its path.

    Raises:
        OutputError: The file exists (and `overwrite` is false) or cannot be written.
    """
    target = Path(path)
    _check(target, overwrite=overwrite)
    try:
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
        _write(target, text)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}",
            "choose a writable place or free some disk",
        ) from error
    return target


def _rendered(
    subject: list[Result] | Comparison | Track | TrainingRun | study.Study | str | Path,
) -> str:
    if isinstance(subject, str | Path):
        return page_of(subject)
    if isinstance(subject, study.Study):
        return studypage.render(subject)
    if isinstance(subject, Comparison):
        return render_comparison(subject)
    if isinstance(subject, Track):
        return trackpage.render(subject)
    return trainpage.render(subject) if isinstance(subject, TrainingRun) else render(subject)


def _check(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder, not a file", "name the HTML file to write")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists", "pass --overwrite or choose another --out")


def _write(target: Path, text: str) -> None:
    """Write under a temporary name in the same folder, then rename into place."""
    handle, name = tempfile.mkstemp(dir=target.resolve().parent, prefix=".attnprobe-")
    staging = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        staging.chmod(0o644)  # mkstemp makes the file private, a page is to be shared
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)
