"""The runs of a collection while it is measured: kept one by one, found again afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnprobe.results import Result, collection
from attnprobe.results.manifest import kind_of

# settings that runs of earlier releases lack, and what they were
ADDED = {"mask_ratio": 0.0, "mask_seed": 0, "mask_how": "auto", "mask_patch": 0}
# settings that say how fast, not what
FREE = {"batch_size", "workers", "device"}


@dataclass(frozen=True)
class Kept:
    """A finished run.

    Attributes:
        name: Name of its folder.
        manifest: What the folder says about it.
    """

    name: str
    manifest: dict[str, Any]

    @property
    def candidates(self) -> int:
        """Images it was to be measured on, those that could not be read among them."""
        facts = self.manifest["provenance"]
        return facts.images + len(facts.skipped)

    @property
    def images_sha256(self) -> str:
        """Hash of the images it was measured on."""
        return self.manifest["provenance"].images_sha256

    def differs(self, settings: Mapping[str, Any]) -> str:
        """Return the name of a setting that has another value in this run, or nothing."""
        stored = self.manifest["config"]
        apart = (name for name in settings if name not in FREE)
        differing = next((name for name in apart if not _same(stored, settings, name)), "")
        return differing.replace("_", " ")


@dataclass
class Runs:
    """The runs of one collection; nothing is written before the first one is saved.

    Attributes:
        path: The folder.
        kind: What it is: a track or a comparison.
        resumed: Whether what it holds already is kept.
        done: Names of the run folders that are part of it now, in the order of the checkpoints.
    """

    path: Path
    kind: str
    resumed: bool
    done: list[str] = field(default_factory=list)
    _started: bool = False
    _kept: dict[str, list[Kept]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, manifest in collection.finished_runs(self.path) if self.resumed else ():
            kept = Kept(place.name, manifest)
            self._kept.setdefault(manifest["provenance"].weights_sha256, []).append(kept)

    def take(self, weights_sha256: str) -> Kept | None:
        """Return a finished run of a checkpoint, each once."""
        found = self._kept.get(weights_sha256)
        return found.pop(0) if found else None

    def reuse(self, kept: Kept) -> Result:
        """Make a finished run part of the collection."""
        result = self.load(kept.name)
        self.done.append(kept.name)
        return result

    def save(self, result: Result, texts: dict[str, str], *, over: Kept | None = None) -> None:
        """Write a run and make it part of the collection, in place of an outdated one."""
        self.start()
        name = over.name if over else self._free_name(result.name)
        result.save(self.path / collection.RUNS / name, overwrite=over is not None, texts=texts)
        self.done.append(name)

    def load(self, name: str) -> Result:
        """Read one run."""
        return Result.load(self.path / collection.RUNS / name)

    def start(self) -> None:
        """Say in the folder what is under way."""
        if self._started:
            return
        if self.resumed and kind_of(self.path) == self.kind:
            collection.reopen(self.path, self.kind)
        else:
            collection.begin(self.path, self.kind)
        self._started = True

    def _free_name(self, name: str) -> str:
        number = len(self.done) + 1
        taken = [*self.done, *(kept.name for held in self._kept.values() for kept in held)]
        numbers = {text.split("-")[0] for text in taken}
        while f"{number:02}" in numbers:
            number += 1
        return collection.run_name(number, name)


def _same(stored: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> bool:
    """Whether a setting is the stored one; sequences are stored as lists."""
    value = settings[name]
    return stored.get(name, ADDED.get(name)) == (list(value) if isinstance(value, tuple) else value)
