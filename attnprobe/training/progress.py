"""How far a run is, and the few numbers that a resumed run must not lose."""

import math
from typing import Any

import torch
from torch import Tensor

WINDOW = 50  # updates over which the loss is averaged before it is called diverging
COUNTS = ("step", "seconds", "seen", "early", "recent", "epoch_sum", "epoch_count", "best")
FACTOR = 2.0  # ... beyond this many times its first average


class Progress:
    """Counts of a run; accelerate saves it with the weights.

    Attributes:
        step: Updates done.
        seconds: Wall time of all sessions of the run.
        losses: Loss of the updates since the last line of metrics.jsonl, on the device.
        seen: How many of these were looked at.
        extras: Other scalars of these updates, by name.
        early: Mean loss of the first updates, or None before they are over.
        recent: The last losses, at most `WINDOW`.
        epoch_sum: Sum of the losses of this epoch.
        epoch_count: Their number.
        best: Best value so far of what decides the best checkpoint.
        broken: Indices of images that could not be read.
    """

    def __init__(self) -> None:
        self.step, self.seconds = 0, 0.0
        self.losses: list[Tensor] = []
        self.seen = 0
        self.extras: dict[str, list[Tensor]] = {}
        self.early: float | None = None
        self.recent: list[float] = []
        self.epoch_sum, self.epoch_count = 0.0, 0
        self.best = -math.inf
        self.broken: set[int] = set()

    def add(self, values: dict[str, Tensor]) -> None:
        """Take the scalars of one update."""
        self.losses.append(values["loss"].detach())
        for name, value in values.items():
            if name != "loss":
                self.extras.setdefault(name, []).append(value.detach())

    def means(self) -> dict[str, Tensor]:
        """Mean of every scalar since the last line, float32 scalars on their device."""
        found = {"loss": torch.stack(self.losses).float().mean()}
        return found | {
            name: torch.stack(values).float().mean() for name, values in self.extras.items()
        }

    def unseen(self) -> list[float]:
        """Note the losses that were not looked at yet, and return them."""
        values = _floats(self.losses[self.seen :])
        self.seen = len(self.losses)
        self.recent = [*self.recent, *values][-WINDOW:]
        if self.early is None and len(self.recent) == WINDOW:
            self.early = sum(self.recent) / WINDOW
        self.epoch_sum += sum(values)
        self.epoch_count += len(values)
        return values

    def close(self) -> None:
        """Begin the next line of metrics."""
        self.losses, self.extras, self.seen = [], {}, 0

    def end_epoch(self) -> float:
        """Mean loss of the epoch that is over; the next begins."""
        mean = self.epoch_sum / self.epoch_count if self.epoch_count else math.nan
        self.epoch_sum, self.epoch_count = 0.0, 0
        return mean

    def diverging(self) -> bool:
        """Whether the average loss grew far beyond where it began."""
        if self.early is None or len(self.recent) < WINDOW:
            return False
        return sum(self.recent) / WINDOW > FACTOR * max(self.early, 1e-6)

    def state_dict(self) -> dict[str, Any]:
        """Plain values only."""
        window = {name: _floats(values) for name, values in self.extras.items()}
        return {
            "step": self.step,
            "seconds": self.seconds,
            "losses": _floats(self.losses),
            "seen": self.seen,
            "extras": window,
            "early": self.early,
            "recent": list(self.recent),
            "epoch_sum": self.epoch_sum,
            "epoch_count": self.epoch_count,
            "best": self.best,
            "broken": sorted(self.broken),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in COUNTS:
            setattr(self, name, state[name])
        self.losses = [torch.tensor(value) for value in state["losses"]]  # on the CPU
        self.extras = {
            name: [torch.tensor(value) for value in values]
            for name, values in state["extras"].items()
        }
        self.broken = set(state["broken"])


def _floats(values: list[Tensor]) -> list[float]:
    return torch.stack(values).float().tolist() if values else []
