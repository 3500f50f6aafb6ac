"""Everything that a run has measured so far, however it was cut into batches and processes.

Values of attention come image by image and only have to be put in order. Values of features
(CKA) come from mini-batches, which are fixed runs of candidates: the same whatever the forward
batch, the number of processes and the interruptions, so the estimates are, too. Features wait
until their mini-batch is complete and are dropped then.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import AttnprobeError
from attnprobe.grouping import Grouping
from attnprobe.measuring import Batch
from attnprobe.metrics import Metric
from attnprobe.parts import SEPARATOR, Arrays, Part, add_sums, by_layer, joined
from attnprobe.types import MetricOptions


@dataclass
class Gathered:
    """What was measured, part by part.

    Attributes:
        metrics: The metrics measured.
        options: Their conventions.
        count: Candidates in all.
        device: Where features that come from disk are put.
    """

    metrics: tuple[Metric, ...]
    options: MetricOptions
    count: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _parts: list[Part] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)
    _open: dict[int, int] = field(default_factory=dict)  # candidates seen of each mini-batch
    _finished: set[int] = field(default_factory=set)  # mini-batches that are reduced
    _sums: Arrays = field(default_factory=dict)
    _waiting: dict[int, list[tuple[np.ndarray, dict[str, Tensor]]]] = field(default_factory=dict)

    @cached_property
    def reduced(self) -> tuple[Metric, ...]:
        """The metrics over features."""
        return tuple(metric for metric in self.metrics if metric.features)

    @cached_property
    def grouping(self) -> Grouping:
        """The mini-batches of the candidates."""
        smallest = max((m.features.smallest for m in self.reduced if m.features), default=1)
        return Grouping(self.count, self.options.cka_batch, smallest)

    @property
    def seen(self) -> set[int]:
        """Candidates accounted for, read or skipped."""
        return self._seen

    def waits(self, number: int) -> bool:
        """Whether the features of an image still wait for their mini-batch."""
        return self.grouping.of(number) in self._waiting

    @property
    def images(self) -> int:
        """Images measured so far."""
        return sum(len(part.numbers) for part in self._parts)

    def add_batch(
        self, batch: Batch, numbers: Iterable[int], digests: np.ndarray, skipped: dict[int, str]
    ) -> Part:
        """Take what one forward pass gave; return it as a part, to be put on disk.

        Args:
            batch: What was measured.
            numbers: Its images, by number among the candidates.
            digests: Hashes of their contents, uint8 [n, 32].
            skipped: Candidates that could not be read, and why.
        """
        held = np.fromiter(numbers, dtype=np.int64)
        part = Part(
            numbers=held,
            digests=digests,
            skipped=skipped,
            rows=batch.rows,
            sums=batch.sums,
            maps=batch.maps,
            layers=batch.layers,
            kernels=batch.kernels,
        )
        self._note(part)
        self._wait(held, batch.features)
        part.groups = self._complete(part.seen)
        kept = np.array([self.grouping.of(number) not in part.groups for number in held], bool)
        if batch.features and kept.any():
            part.pending = held[kept]
            rows = torch.from_numpy(np.flatnonzero(kept))
            part.features = {
                name: x[rows.to(x.device)].cpu().numpy() for name, x in batch.features.items()
            }
        self._keep(part)
        return part

    def add(self, part: Part) -> None:
        """Take a part from disk or from another process.

        Raises:
            AttnprobeError: It holds images that are here already.
        """
        if twice := part.seen & self._seen:
            raise AttnprobeError(
                f"image {min(twice)} was measured twice", "measure again without --resume"
            )
        self._note(part)
        for group in part.groups:  # parts come in any order: features may come after their group
            self._finished.add(group)
            self._waiting.pop(group, None)
        features = {n: torch.from_numpy(x).to(self.device) for n, x in part.features.items()}
        self._wait(part.pending, features)
        self._keep(part)
        finished = self._complete(part.seen)
        if finished:
            self._parts.append(Part(groups=finished))

    def whole(self) -> Part:
        """Return all that is here as one part, features that wait among it."""
        found = self._joined()
        waiting = [held for parts in self._waiting.values() for held in parts]
        if waiting:
            found.pending = np.concatenate([numbers for numbers, _ in waiting])
            found.features = {
                name: torch.cat([features[name] for _, features in waiting]).cpu().numpy()
                for name in waiting[0][1]
            }
        return found

    def finish(self) -> Part:
        """Return all values, with every mini-batch reduced.

        Raises:
            AttnprobeError: Candidates are missing.
        """
        if missing := self.count - len(self._seen):
            raise AttnprobeError(
                f"{missing} of {self.count} images were never measured", "report this as a defect"
            )
        self._check_groups()
        left = sorted(self._waiting)  # those with too few readable images for a mini-batch
        if left:
            parts = [held for group in left for held in self._waiting[group]]
            self._parts.append(Part(groups={left[-1]: self._reduce(parts)}))
            self._waiting.clear()
        return self._joined()

    def _joined(self) -> Part:
        found = joined(self._parts)
        for part in self._parts:  # some hold nothing but mini-batches
            found.groups |= part.groups
        found.sums = dict(self._sums)
        return found

    def _keep(self, part: Part) -> None:
        """Keep a part without what is kept elsewhere: features wait, sums are added up."""
        add_sums(self._sums, part.sums)
        self._parts.append(replace(part, pending=part.pending[:0], features={}, sums={}))

    def _check_groups(self) -> None:
        """Refuse mini-batches that were reduced over other images than those that are here."""
        here = {number for part in self._parts for number in part.numbers.tolist()}
        for part in self._parts:
            for group, held in part.groups.items():
                if here & set(self.grouping.members(group)) != set(held["numbers"].tolist()):
                    raise AttnprobeError(
                        "images changed while the measurement was interrupted",
                        "measure anew with --overwrite",
                    )

    def _note(self, part: Part) -> None:
        """Count the candidates of a part to their mini-batches."""
        self._seen |= part.seen
        for number in part.seen:
            group = self.grouping.of(number)
            self._open[group] = self._open.get(group, 0) + 1

    def _wait(self, numbers: np.ndarray, features: dict[str, Tensor]) -> None:
        """Put features to their mini-batches."""
        if not features:
            return
        groups = np.array([self.grouping.of(number) for number in numbers.tolist()])
        for group in sorted(set(groups.tolist()) - self._finished):
            at = np.flatnonzero(groups == group)
            rows = torch.from_numpy(at)
            part = {name: x[rows.to(x.device)] for name, x in features.items()}
            self._waiting.setdefault(group, []).append((numbers[at], part))

    def _complete(self, seen: Iterable[int]) -> dict[int, Arrays]:
        """Reduce the mini-batches whose candidates have all been seen."""
        found = {}
        for group in sorted({self.grouping.of(number) for number in seen} - self._finished):
            whole = self._open[group] == len(self.grouping.members(group))
            parts = self._waiting.get(group, [])
            images = sum(len(numbers) for numbers, _ in parts)
            if whole and images >= max(self.grouping.smallest, 1) and parts:
                found[group] = self._reduce(self._waiting.pop(group))
                self._finished.add(group)
        return found

    def _reduce(self, parts: list[tuple[np.ndarray, dict[str, Tensor]]]) -> Arrays:
        numbers = np.concatenate([numbers for numbers, _ in parts])
        order = torch.from_numpy(np.argsort(numbers))
        found: Arrays = {"numbers": numbers[order.numpy()]}
        for metric in self.reduced:
            sides = [by_layer(features, metric.name) for _, features in parts]
            layers = [
                torch.cat([side[layer] for side in sides])[order.to(self.device)]
                for layer in sides[0]
            ]
            if metric.features and layers:
                held = metric.features.group(layers, self.options)
                found |= {f"{metric.name}{SEPARATOR}{key}": value for key, value in held.items()}
        return found
