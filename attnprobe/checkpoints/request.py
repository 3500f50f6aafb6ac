"""What a user can ask for when a checkpoint is loaded."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attnprobe.errors import CheckpointError


@dataclass(frozen=True)
class LoadOptions:
    """How to read a checkpoint, beside what the file says itself.

    Attributes:
        heads: Head count, where neither names nor shapes tell it.
        name: Label for tables and plots.
        trust: Let pickled code in the file run.
        part: Which encoder, of files that hold several: teacher, student, model_ema,
            base_encoder, momentum_encoder, ...
        arch: timm model name that holds the weights, where names and shapes do not tell it.
        img_size: Rows and columns of the input in pixels, to which positions are resampled;
            one number or "224x192" do too.
        window: Rows and columns of the attention windows, to which tables are resampled.
        plugins: Python files with formats, readers and metrics of the user's own.
    """

    heads: int | None = None
    name: str | None = None
    trust: bool = False
    part: str | None = None
    arch: str | None = None
    img_size: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    plugins: tuple[Path, ...] = ()

    @property
    def asked(self) -> dict[str, Any]:
        """Those options that change what is loaded, as plain values."""
        names = ("part", "heads", "arch", "img_size", "window")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def options(**given: Any) -> LoadOptions:
    """Return options from what a user typed: sizes as 224, "224x192" or (224, 192).

    Raises:
        CheckpointError: A size is none, or there is no such option.

    >>> options(img_size="224x192", window=7).asked
    {'img_size': (224, 192), 'window': (7, 7)}
    """
    known = {item.name for item in fields(LoadOptions)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise CheckpointError(
            f"load has no option {unknown[0]!r}", f"use: {', '.join(sorted(known))}"
        )
    sizes = {name: _size(name, given.get(name)) for name in ("img_size", "window")}
    plugins = tuple(Path(path) for path in given.get("plugins") or ())
    return LoadOptions(**{**given, **sizes, "plugins": plugins})


def _size(name: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.split("x") if isinstance(value, str) else value
    try:
        sides = [int(side) for side in (parts if isinstance(parts, list | tuple) else [parts])]
    except (TypeError, ValueError):
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise CheckpointError(f"{name} {value!r} is no size", 'give 224, "224x192" or (224, 192)')
    return sides[0], sides[-1]
