"""metrics.jsonl: one JSON object a line, cut back to the resumed update on resume."""

import json
import math
from pathlib import Path
from typing import Any

from attnprobe.errors import OutputError
from attnprobe.training import outputs

NAME = "metrics.jsonl"


class Journal:
    """Appends lines to a run's metrics; only the main process has one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def rewind(self, step: int) -> None:
        """Forget lines after an update, and what follows a line that a crash cut in the middle.

        Raises:
            OutputError: The file cannot be read or written.
        """
        if not self.path.exists():
            return
        kept = []
        for line in self._text().splitlines():
            row = _row(line)
            if row is None or row["step"] > step:
                break
            kept.append(line + "\n")
        outputs.put(self.path, "".join(kept).encode())

    def add(self, kind: str, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Append one line; values that are not finite are written as null.

        Raises:
            OutputError: The disk is full.
        """
        row = {"kind": kind, "step": step, "epoch": round(epoch, 6)}
        row |= {name: _plain(value) for name, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}",
                "free some disk, then repeat the command with --resume",
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """Return all lines."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self._text().splitlines()]

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise OutputError(
                f"cannot read {self.path}: {error.strerror}", "move it away; then resume"
            ) from error

    def last_scores(self) -> dict[str, float]:
        """Return the last value of every score."""
        found: dict[str, float] = {}
        for row in self.rows():
            if row["kind"] == "eval":
                found |= {k: v for k, v in row.items() if type(v) is float and k != "epoch"}
        return found


def _row(line: str) -> dict[str, Any] | None:
    """Return a line's values, or None of one that was not written here, or not to its end."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and type(row.get("step")) is int and "kind" in row
    return row if whole else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
