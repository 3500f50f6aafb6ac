"""Results of a run's attention probe, found by their folders and read one at a time."""

import re
from collections.abc import Iterator
from pathlib import Path

from attnprobe.errors import ResultError
from attnprobe.results import Result

NAME = re.compile(r"step-(\d{8,15})")
MOST = 100_000  # folders


class ProbeResults:
    """A sequence of results, ascending by step; each is read when it is asked for.

    Args:
        folder: The folder that holds `step-00000123` and others; it may be absent.

    Attributes:
        steps: Updates that had been done, one a result.

    Raises:
        ResultError: The folder cannot be listed, or has too many entries.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            entries = list(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise ResultError(f"cannot read {folder}: {error.strerror}", "check it") from error
        if len(entries) > MOST:
            raise ResultError(f"{folder} has {len(entries)} entries", "remove what is no probe")
        named = [(NAME.fullmatch(path.name), path) for path in entries]
        found = {int(name[1]): path for name, path in named if name and path.is_dir()}
        self._paths = dict(sorted(found.items()))
        self.steps = tuple(self._paths)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Result:
        return self._read(self.steps[index])

    def __iter__(self) -> Iterator[Result]:
        return map(self._read, self.steps)

    def _read(self, step: int) -> Result:
        """Return one result.

        Raises:
            ResultError: It is damaged, or says that it is of another step.
        """
        path = self._paths[step]
        result = Result.load(path)
        if result.model.get("step", step) != step:
            raise ResultError(
                f"{path} says that it is of step {result.model['step']!r:.20}",
                "remove the folder, or give it its own name again",
            )
        return result
