"""How far a run is, and the few numbers that a resumed run must not lose."""

import math
from typing import Any

import torch
from torch import Tensor

WINDOW = 50  # updates over which the loss is averaged before it is called diverging
SHARED = ("step", "seconds", "best")
PRIVATE = ("seen", "early", "recent", "epoch_sum", "epoch_count")  # each process has its own
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
        parts: What each process knows alone, right before a state is saved.

    Args:
        rank: This process.
        world: Processes.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world
        self.parts: list[dict[str, Any]] = []
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
        found = {"loss": _stacked(self.losses).mean()}
        return found | {name: _stacked(values).mean() for name, values in self.extras.items()}

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

    def part(self) -> dict[str, Any]:
        """What this process alone knows, as plain values."""
        found = {name: getattr(self, name) for name in PRIVATE}
        extras = {name: _floats(values) for name, values in self.extras.items()}
        return {**found, "losses": _floats(self.losses), "extras": extras}

    def state_dict(self) -> dict[str, Any]:
        """Plain values only; of all processes if `parts` holds what each of them knows now."""
        shared = {name: getattr(self, name) for name in SHARED}
        parts, self.parts = self.parts or [self.part()], []
        return {**shared, "broken": sorted(self.broken), "parts": parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or the mean where there were other processes."""
        for name in SHARED:
            setattr(self, name, state[name])
        self.broken = set(state["broken"])
        parts = state["parts"]
        mine = parts[self.rank] if len(parts) == self.world else _mean(parts)
        for name in PRIVATE:
            setattr(self, name, mine[name])
        self.losses = _tensors(mine["losses"])
        self.extras = {name: _tensors(values) for name, values in mine["extras"].items()}


def _mean(parts: list[Any]) -> Any:
    """Return the mean of nested values that differ in their numbers only."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: _mean([part[name] for part in parts]) for name in first}
    if isinstance(first, list):
        return [_mean(list(values)) for values in zip(*parts, strict=True)]
    return sum(parts) / len(parts) if isinstance(first, float) else first


def _tensors(values: list[float]) -> list[Tensor]:
    return [torch.tensor(value) for value in values]


def _stacked(values: list[Tensor]) -> Tensor:
    """Return float32 [n] on the device of the newest; values of a saved state are on the CPU."""
    device = values[-1].device
    return torch.stack([value.to(device, torch.float32) for value in values])


def _floats(values: list[Tensor]) -> list[float]:
    return _stacked(values).tolist() if values else []
