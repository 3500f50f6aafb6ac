"""The result folders of one probe: one a step, all of the same images and options."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from attnprobe.errors import OutputError, ResultError
from attnprobe.results import Result
from attnprobe.results.manifest import kind_of
from attnprobe.settings import AnalysisConfig

NAME = re.compile(r"step-(\d{8,})")
FREE = ("batch_size", "limit")  # settings that change no number of the same images


class ProbeFolders:
    """Result folders by step.

    Args:
        out: The folder that holds them.
        sha256: Hash of the images that are measured.
        config: How they are measured.

    Raises:
        OutputError: It holds results of other images or options.
    """

    def __init__(self, out: Path, sha256: str, config: AnalysisConfig) -> None:
        self.out = out
        self._means: dict[int, pd.DataFrame] = {}
        for step, path in self._found().items():
            if kept := _loaded(path):
                alike = kept.provenance.images_sha256 == sha256
                if not alike or _settings(kept.config) != _settings(config.flat()):
                    raise OutputError(
                        f"{path} was measured on other images or with other options",
                        "choose another folder for this probe, or remove that one",
                    )
                self._means[step] = kept.tables["layer_means"]

    def has(self, step: int) -> bool:
        """Whether a step was measured."""
        return step in self._means

    def rewind(self, step: int) -> None:
        """Forget what was measured after a step; a run from its start keeps nothing.

        Raises:
            OutputError: A folder cannot be removed.
        """
        for later, path in self._found().items():
            if later > step or step == 0:
                self._means.pop(later, None)
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    raise OutputError(
                        f"cannot remove {path}, which is of a later step: {error.strerror}",
                        "remove it, or choose another folder for this probe",
                    ) from error

    def put(self, result: Result, step: int, epoch: float | None) -> Result:
        """Save a result under its step, and return it as it was saved.

        Raises:
            OutputError: It cannot be written.
        """
        name = f"step-{step:08d}"
        told = {"source": name, "step": step} | ({} if epoch is None else {"epoch": float(epoch)})
        placed = replace(result, name=f"{result.name}, step {step}", model={**result.model, **told})
        placed.save(self.out / name, overwrite=True)
        self._means[step] = placed.tables["layer_means"]
        return placed

    def results(self) -> list[Result]:
        """Return what was saved, ascending by step."""
        return [Result.load(self.out / f"step-{step:08d}") for step in sorted(self._means)]

    def history(self, columns: list[str]) -> pd.DataFrame:
        """Return the layer means of all steps under each other."""
        parts = [self._means[step].assign(step=step) for step in sorted(self._means)]
        whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        return whole.reindex(columns=columns)

    def _found(self) -> dict[int, Path]:
        """Return the folders that are named after steps and hold results."""
        if not self.out.is_dir():
            return {}
        named = [(NAME.fullmatch(path.name), path) for path in sorted(self.out.iterdir())]
        return {int(name[1]): path for name, path in named if name and kind_of(path) == "result"}


def _loaded(path: Path) -> Result | None:
    """Return a result, or nothing where a crash left half of one, which is measured again."""
    try:
        return Result.load(path)
    except ResultError:
        return None


def _settings(config: dict[str, object]) -> dict[str, object]:
    """Return what decides numbers; a setting that a probe is too old to know is as by default."""
    whole = {**AnalysisConfig().flat(), **config}
    return {name: value for name, value in whole.items() if value is not None and name not in FREE}
