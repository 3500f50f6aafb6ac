"""A run's folder: made, checked against the configuration, before anything runs."""

import shutil
from pathlib import Path
from typing import Any

from attnprobe.errors import OutputError
from attnprobe.results.folders import check_output
from attnprobe.training import config as configs
from attnprobe.training import outputs
from attnprobe.training.config import TrainingConfig
from attnprobe.training.sections import FREE

CONFIG = "config.toml"


def check(path: Path, config: TrainingConfig, *, resume: bool, overwrite: bool) -> bool:
    """Refuse a folder before any work; return whether a run in it is taken up again.

    Raises:
        OutputError: There is a run already, none to resume, or one of another configuration.
    """
    if resume and (path / CONFIG).exists():
        _same(path, config)
        return True
    if resume and path.exists() and any(path.iterdir()):
        stored(path)  # refuses: something else is in it
    check_output(path, overwrite=overwrite)
    return False


def make(path: Path, config: TrainingConfig, *, again: bool) -> Path | None:
    """Write the configuration into the run's folder, emptied unless a run is taken up again.

    Returns:
        What has to go if the run cannot begin after all, or None for a run taken up again.
    """
    if again:
        outputs.put(path / CONFIG, config.toml().encode())
        return None
    path = path.resolve()
    made = next((one for one in reversed([path, *path.parents]) if not one.exists()), path)
    path.mkdir(parents=True, exist_ok=True)
    _empty(path)
    outputs.put(path / CONFIG, config.toml().encode())
    return made


def abandon(path: Path, made: Path) -> None:
    """Remove the folder of a run that did not begin, and the parents made for it."""
    _empty(path)
    if made == path.resolve() and not any(path.iterdir()):
        path.rmdir()
    elif made != path.resolve():
        shutil.rmtree(made, ignore_errors=True)


def _empty(path: Path) -> None:
    for old in path.iterdir():  # the folder itself may be a mount
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def stored(path: Path) -> dict[str, Any]:
    """Return the tables of a run's configuration.

    Raises:
        OutputError: There is no run in this folder.
    """
    if not (path / CONFIG).exists():
        raise OutputError(
            f"{path} holds no training run to resume", "leave --resume out, or correct --out"
        )
    return configs.read(path / CONFIG)


def _same(path: Path, config: TrainingConfig) -> None:
    """Refuse a configuration that would make the resumed run another one."""
    before = configs.configure(config.objective, type(config.options), stored(path))
    told = [line for line in configs.differences(before, config) if line.split()[0] not in FREE]
    if told:
        raise OutputError(
            f"{path} was begun with other options: {'; '.join(told)}",
            "resume with the same options, or train into another --out",
        )
