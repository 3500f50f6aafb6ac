"""metrics.jsonl: one JSON object a line, cut back to the resumed update on resume."""

import json
import math
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class Journal:
    """Appends lines to a run's metrics; only the main process has one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def rewind(self, step: int) -> None:
        """Forget lines after an update, and a last line that a crash cut in the middle."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break
            if row["step"] > step:
                break
            kept.append(line + "\n")
        staging = self.path.with_name(f".{NAME}.part")
        staging.write_text("".join(kept), encoding="utf-8")
        staging.replace(self.path)

    def add(self, kind: str, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Append one line; values that are not finite are written as null."""
        row = {"kind": kind, "step": step, "epoch": round(epoch, 6)}
        row |= {name: _plain(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return all lines."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def last_scores(self) -> dict[str, float]:
        """Return the last value of every score."""
        found: dict[str, float] = {}
        for row in self.rows():
            if row["kind"] == "eval":
                found |= {k: v for k, v in row.items() if type(v) is float and k != "epoch"}
        return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
