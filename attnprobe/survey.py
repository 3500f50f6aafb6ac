"""One model measured on one set of images: by several processes, and over interruptions.

The candidates are numbered. Each process measures a contiguous share of those that are left,
puts every batch on disk, and sends what it has to the main process at the end. Where the
shares and batches were cut leaves no trace in the result.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from attnprobe import precision
from attnprobe.errors import AttnprobeError, OutputError
from attnprobe.gathering import Gathered
from attnprobe.images import ImageSet, evenly_spaced
from attnprobe.parts import Part
from attnprobe.passes import Passes, ahead
from attnprobe.precision import Precision
from attnprobe.processes import World
from attnprobe.settings import AnalysisConfig
from attnprobe.types import CheckpointSpec
from attnprobe.unfinished import Unfinished, new_token, unreadable

Progress = Callable[[int, int], None]
TRIAL = 8  # images on which precisions are compared
LOOKED_AT = 8  # images that are looked at again when a run is taken up
HOW = {"batch_size", "workers", "device", "resamples", "seed", "compile", "graphs"}  # not what


@dataclass
class Survey:
    """A measurement and how it is going.

    Attributes:
        passes: Runs the model.
        source: The images.
        config: How to measure.
        spec: Which model it is.
        world: The processes.
        folder: Where the state is kept, or None to keep none.
        resume: Whether to go on from the state that is there.
    """

    passes: Passes
    source: ImageSet
    config: AnalysisConfig
    spec: CheckpointSpec
    world: World = field(default_factory=World)
    folder: Path | None = None
    resume: bool = False
    deviation: dict[str, float] = field(default_factory=dict)

    @cached_property
    def gathered(self) -> Gathered:
        """What this process has measured."""
        found = self.passes.measurement
        return Gathered(found.metrics, found.options, self.source.count, self.passes.device)

    def run(self, progress: Progress | None = None, *, workers: int = 0) -> Part | None:
        """Measure; return everything in the main process and None in the others.

        Args:
            progress: Called with candidates done and candidates in all of this process.
            workers: Processes that decode.

        Raises:
            AttnprobeError: The images, the model or the state cannot be used.
        """
        state = Unfinished(self.folder) if self.folder else None
        with closing(state) if state else nullcontext(), self.passes.watching():
            numbers = self._begin(state)
            total = len(self.gathered.seen) + len(numbers)
            batches = self.source.read(numbers, self.passes.size, workers=workers)
            for batch in ahead(batches, self.passes.device):
                for piece, given in self.passes.measured(batch):
                    part = self.gathered.add_batch(
                        given, piece.numbers, piece.digests, piece.skipped
                    )
                    if state:
                        state.append(part, self.gathered.waits)
                    if progress:
                        progress(len(self.gathered.seen), total)
        return self._end()

    def _begin(self, state: Unfinished | None) -> Sequence[int]:
        """Take up what is there, agree on the precision; return this process's candidates."""
        self._check_alike()
        if state and self.world.main:
            state.claim()
        stored = self._stored(state)
        if stored and state:
            state.run = stored["run"]
            self._take_up(state)
        done = set[int]().union(*self.world.everywhere(self.gathered.seen))
        left = [number for number in range(self.source.count) if number not in done]
        numbers = self.world.share(left)
        told = stored
        if self.world.main and not stored:
            chosen, apart = self._choose(numbers)
            told = {**self._identity, "precision": chosen.name, "deviation": apart}
            told["run"] = new_token()
        told = self.world.shared(told)
        if state:
            state.run = told["run"]
            state.forget_others()
            if self.world.main and not stored:
                state.begin(told)
        self.passes.precision = Precision(told["precision"])
        self.deviation = told["deviation"]
        return numbers

    def _check_alike(self) -> None:
        """Refuse processes that hold other models or see other images."""
        facts = self._identity
        for rank, other in enumerate(self.world.everywhere(facts)):
            if other != facts:
                apart = ", ".join(name for name in facts if facts[name] != other[name])
                raise AttnprobeError(
                    f"process {rank} measures other {apart} than process {self.world.rank}",
                    "give all processes the same files and the same command",
                )

    def _stored(self, state: Unfinished | None) -> dict[str, Any] | None:
        """Return the state of an interrupted run to go on with, the same in all processes."""
        stored = self.world.shared(state.facts() if state and self.world.main else None)
        if stored is None or state is None:
            return None
        if not self.resume:
            raise OutputError(
                f"an interrupted measurement is kept in {state.folder}",
                "go on with it by --resume, or measure anew with --overwrite",
            )
        for name, wanted in self._identity.items():
            if stored.get(name) != wanted:
                what = _what(name, stored, self._identity)
                raise OutputError(
                    f"the interrupted measurement in {state.folder} is of other {what}",
                    "give the command as it was, or measure anew with --overwrite",
                )
        if not _is_precision(stored, self.passes.device):
            raise unreadable(state.folder, "its precision is none")
        return stored

    def _take_up(self, state: Unfinished) -> None:
        """Read what was measured before; each file by one process that sees it."""
        seen = self.world.everywhere(state.files(state.run))
        before = {name for names in seen[: self.world.rank] for name in names}
        own = [name for name in seen[self.world.rank] if name not in before]
        held: dict[int, bytes] = {}
        for part in state.parts(own, self.source.count):
            self.gathered.add(part)
            digests = (row.tobytes() for row in part.digests)
            held |= dict(zip(part.numbers.tolist(), digests, strict=True))
            held |= dict.fromkeys(part.skipped, b"")
        self._check_contents(held)

    def _check_contents(self, held: dict[int, bytes]) -> None:
        """Look at some of the images again: names may be the same and contents others."""
        lost = [number for number in sorted(held) if not held[number]]
        read = [number for number in sorted(held) if held[number]]
        some = [read[at] for at in evenly_spaced(len(read), LOOKED_AT)] if read else []
        numbers = sorted({*some, *read[-1:], *lost[:LOOKED_AT]})
        for batch in self.source.read(numbers, TRIAL):
            now = dict(zip(batch.numbers, (row.tobytes() for row in batch.digests), strict=True))
            now |= dict.fromkeys(batch.skipped, b"")
            for number, digest in now.items():
                if held[number] != digest:
                    raise OutputError(
                        f"{self.source.ids[number]} has changed since the interruption",
                        "measure anew with --overwrite",
                    )

    def _choose(self, numbers: Sequence[int]) -> tuple[Precision, dict[str, float]]:
        """Return the precision of the passes, and how far it is from fp32 on some images."""
        asked, passes = self.config.precision, self.passes
        tried = precision.candidates(asked, passes.device, self.source.count, passes.size)
        if asked not in {"auto", "fp32"}:
            tried = (Precision(asked),)
        precision.check_weights(asked, passes.held)
        if not tried or passes.held != torch.float32:
            return Precision("fp32" if asked == "auto" else asked), {}
        size = min(TRIAL, passes.size)
        batch = next((b for b in self.source.read(numbers, size) if b.ids), None)
        for candidate in tried:
            if batch is None:
                break
            apart = passes.deviation(batch, candidate, forgiving=asked == "auto")
            if asked != "auto" or max(apart.values(), default=0.0) <= precision.TOLERANCE:
                return candidate, apart
        return Precision("fp32" if asked == "auto" else asked), {}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What tells this measurement from others; plain values as JSON has them."""
        ids = hashlib.sha256("\0".join(self.source.ids).encode()).hexdigest()
        facts = {
            "config": {name: x for name, x in self.config.flat().items() if name not in HOW},
            "weights": self.spec.sha256,
            "model": [self.spec.architecture, self.spec.model_args, self.spec.input_size],
            "asked": self.spec.asked,
            "images": [self.source.count, ids, self.source.transform],
            "version": version("attnprobe"),
        }
        return json.loads(json.dumps(facts, default=str))

    def _end(self) -> Part | None:
        """Bring everything together in the main process."""
        if self.world.count > 1:
            parts = self.world.gathered(None if self.world.main else self.gathered.whole())
            for part in parts[1:]:
                self.gathered.add(part)
        if not self.world.main:
            return None
        if not self.gathered.images:
            skipped = self.gathered.whole().skipped
            raise self.source.no_images(skipped[min(skipped)])
        return self.gathered.finish()


def _what(name: str, stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return in what an interrupted run differs."""
    if name != "config":
        return name
    held = stored[name] if isinstance(stored.get(name), dict) else {}
    apart = [key for key in wanted[name] if held.get(key) != wanted[name][key]]
    return f"settings (changed: {', '.join(apart).replace('_', ' ')})"


def _is_precision(stored: dict[str, Any], device: torch.device) -> bool:
    """Whether a state names a precision that this device has, and what it changed."""
    name, apart = stored.get("precision"), stored.get("deviation")
    numbers = isinstance(apart, dict) and all(isinstance(x, int | float) for x in apart.values())
    known = isinstance(name, str) and name in precision.NAMES[1:]
    return known and numbers and precision.checked(str(name), device) == name
