"""What a user can ask for when a checkpoint is loaded."""

from dataclasses import dataclass
from pathlib import Path


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
        img_size: Rows and columns of the input in pixels, to which positions are resampled.
        window: Rows and columns of the attention windows, to which tables are resampled.
        plugins: Python files with formats and readers of the user's own.
    """

    heads: int | None = None
    name: str | None = None
    trust: bool = False
    part: str | None = None
    arch: str | None = None
    img_size: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    plugins: tuple[Path, ...] = ()
