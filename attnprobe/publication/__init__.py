"""Results as they go into a paper: vector figures, LaTeX tables and the captions of both.

    figures/  distance.pdf ... figures.tex tables/*.tex manifest.json

The figures are those of the page, set in a paper's type at the width of a column or a page.
"""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attnprobe import plugins
from attnprobe.comparison import Comparison
from attnprobe.errors import AttnprobeError, OutputError, ResultError
from attnprobe.plots import MOST, Plot, drawable, fills
from attnprobe.publication import captions, images
from attnprobe.publication.comparison_tables import comparison_tables
from attnprobe.publication.paper import INCH, Paper, paper, typeset
from attnprobe.publication.tables import models, tables
from attnprobe.report.comparing import legible_comparison
from attnprobe.report.legible import legible_result
from attnprobe.report.trackpage import legible_track
from attnprobe.results import Result
from attnprobe.results.folders import MANIFEST, check_output, place
from attnprobe.tracking import Track

__all__ = ["Paper", "paper", "publish", "write"]

PLOTS = "attnprobe.plots"
KIND = "figures"
TALLEST = 9.0  # inches
LONGEST_NAME = 80


def publish(
    subject: Sequence[Result] | Comparison | Track,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("pdf",),
    plots: Sequence[str] | None = None,
    width: str | float = "text",
    font: str = "serif",
    size: float = 8.0,
    overwrite: bool = False,
) -> list[Path]:
    """Write figures and tables and return their paths.

    Args:
        subject: One to eight results in the order of the figures, a comparison, or a track.
        folder: Where to write.
        formats: Some of pdf, svg and png.
        plots: Names of plots; by default all that the results can fill.
        width: `column` (3.25 inches), `text` (6.75 inches) or inches.
        font: `serif`, `sans` or a font family of this machine.
        size: Of the type, in points.
        overwrite: Replace figures that an earlier call wrote there.

    Raises:
        AttnprobeError: kaleido or Chrome is missing, or an argument cannot be met.
        OutputError: The folder holds something else or cannot be written.
        ResultError: There are no results, too many, or some with different units.
    """
    look = paper(width, font, size)
    held, subjects, texts = _legible(subject)
    return write(
        _pairs(subjects, plots),
        texts,
        folder,
        formats=formats,
        look=look,
        overwrite=overwrite,
        about={"models": [_about(result) for result in held]},
    )


def write(
    pairs: Sequence[tuple[Plot, Any]],
    texts: dict[str, str],
    folder: str | Path,
    *,
    formats: Sequence[str],
    look: Paper,
    overwrite: bool,
    about: dict[str, Any],
) -> list[Path]:
    """Draw plots of any subjects and write them beside tables, all or nothing.

    Args:
        pairs: Plots, each with what it is to draw; a plot's name becomes a file name.
        texts: LaTeX tables by name.
        folder: Where to write.
        formats: Some of pdf, svg and png.
        look: Width and type.
        overwrite: Replace what an earlier call wrote there.
        about: What the manifest says of the subjects.
    """
    kinds = _formats(formats)
    path = _check(folder, overwrite=overwrite)
    drawn = {plot.name: typeset(plot.draw(subject), look) for plot, subject in pairs}
    files: dict[str, bytes] = {
        f"{name}.{kind}": data for (name, kind), data in images.draw(drawn, kinds).items()
    }
    files |= {f"tables/{name}.tex": text.encode() for name, text in _file_names(texts).items()}
    if printed := next((kind for kind in kinds if kind != "svg"), None):
        files["figures.tex"] = captions.floats(pairs, printed, look).encode()
    _warn(drawn, files)
    content = {
        "kind": KIND,
        "attnprobe": version("attnprobe"),
        "look": asdict(look),
        **about,
        "files": sorted(files),
    }
    files[MANIFEST] = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    _put(path, files)
    return [path / name for name in files]


def _legible(
    subject: Sequence[Result] | Comparison | Track,
) -> tuple[list[Result], dict[str, Any], dict[str, str]]:
    """Return the results, what each kind of plot draws, and the LaTeX tables."""
    if isinstance(subject, Track):
        track = legible_track(subject)
        last = [track.results[-1]]
        return last, {"track": track}, {"models": models(last)}
    if isinstance(subject, Comparison):
        comparison = legible_comparison(subject)
        held = list(comparison.results)
        subjects = {"results": held, "comparison": comparison}
        return held, subjects, tables(held) | comparison_tables(comparison)
    if not 1 <= len(subject) <= MOST:
        raise ResultError(
            f"figures take 1 to {MOST} results, not {len(subject)}",
            "choose the models that matter most",
        )
    held = [legible_result(result) for result in subject]
    return held, {"results": held}, tables(held)


def _pairs(subjects: dict[str, Any], names: Sequence[str] | None) -> list[tuple[Plot, Any]]:
    """Pair plots with what fills them; a plot asked for by name has to be filled."""
    chosen = plugins.names(PLOTS) if names is None else dict.fromkeys(names)
    plots: list[Plot] = [plugins.load(PLOTS, name, "PLOT") for name in chosen]
    pairs = [(plot, _filling(plot, subjects.get(plot.of))) for plot in plots]
    for plot, held in pairs:
        if names is not None and not held:
            needs = f"{plot.minimum} or more with {' and '.join(plot.needs)}"
            raise AttnprobeError(
                f"these results cannot fill the plot {plot.name!r}",
                f"it draws {plot.of}" + (f": {needs}" if plot.of == "results" else ""),
            )
    return [(plot, held) for plot, held in pairs if held]


def _filling(plot: Plot, subject: Any) -> Any:
    """Return what a plot is to draw, or nothing where it cannot be filled."""
    if plot.of == "results":
        return drawable(plot, subject or [])
    return subject if subject and fills(plot, subject.tables) else None


def _file_names(texts: dict[str, str]) -> dict[str, str]:
    """Return the texts under names that stay in their folder, whatever a result calls a metric."""
    named: dict[str, str] = {}
    for name, text in texts.items():
        safe = re.sub(r"[^\w-]+", "-", name)[:LONGEST_NAME].strip("-") or "table"
        while safe in named:
            safe += "-"
        named[safe] = text
    return named


def _formats(formats: Sequence[str]) -> tuple[str, ...]:
    unknown = [kind for kind in formats if kind not in images.FORMATS]
    if unknown or not formats:
        raise AttnprobeError(
            f"unknown format {', '.join(unknown) or 'none'}",
            f"choose from: {', '.join(images.FORMATS)}",
        )
    return tuple(dict.fromkeys(formats))


def _check(folder: str | Path, *, overwrite: bool) -> Path:
    """Refuse to put figures in the place of a result, whose folder also has a manifest."""
    path = check_output(folder, overwrite=overwrite)
    manifest = path / MANIFEST
    if manifest.is_file() and _kind(manifest) != KIND:
        raise OutputError(f"{path} holds a result, not figures", "choose another --out")
    return path


def _kind(manifest: Path) -> Any:
    try:
        return json.loads(manifest.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return None


def _put(path: Path, files: dict[str, bytes]) -> None:
    def fill(staging: Path) -> None:
        for name, data in files.items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(data)

    try:
        place(path, fill)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "free some disk or choose another --out",
        ) from error


def _warn(drawn: dict[str, dict[str, Any]], files: dict[str, bytes]) -> None:
    """Say what an editor would send back."""
    for name, figure in drawn.items():
        if (inches := figure["layout"]["height"] / INCH) > TALLEST:
            warnings.warn(
                f"{name} is {inches:.1f} inches tall, more than a page holds; "
                "take fewer models or a greater --width",
                stacklevel=3,
            )
    odd = [name for name, data in files.items() if name.endswith("pdf") and b"/Type3" in data]
    if odd:
        warnings.warn(
            f"Chrome embedded a Type 3 font in {', '.join(odd)}, which some publishers refuse; "
            "name a TrueType font with --font",
            stacklevel=3,
        )


def _about(result: Result) -> dict[str, Any]:
    made = result.provenance
    return {
        "name": result.name,
        "weights_sha256": made.weights_sha256,
        "images_sha256": made.images_sha256,
        "images": made.images,
    }
