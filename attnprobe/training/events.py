"""What a run tells while it goes and when it ends. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How a run ended in this session.

    Attributes:
        folder: The run's folder.
        status: finished, or interrupted (and resumable).
        step: Updates done.
        steps: Updates of the whole run.
        scores: Last evaluation, by name.
        broken: Names of images that could not be read.
        processes: Processes of the run.
        main: Whether this is the one that writes and speaks.
    """

    folder: Path
    status: str
    step: int
    steps: int
    scores: dict[str, float]
    broken: tuple[str, ...] = ()
    processes: int = 1
    main: bool = True


@dataclass(frozen=True)
class Update:
    """What a listener hears after an update: counts, loss, speed."""

    step: int
    steps: int
    epoch: float
    loss: float
    images_per_s: float


Listener = Callable[[Update], None]
