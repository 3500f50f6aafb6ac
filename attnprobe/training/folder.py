"""A run's folder: made, checked against the configuration, before anything runs."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from attnprobe import locking
from attnprobe.errors import OutputError
from attnprobe.results.folders import check_output
from attnprobe.training import config as configs
from attnprobe.training import outputs
from attnprobe.training.config import TrainingConfig
from attnprobe.training.sections import FREE

CONFIG = "config.toml"
LOCK = ".lock"
RETIRED = ".attnprobe-old-run"


def check(path: Path, config: TrainingConfig, *, resume: bool, overwrite: bool) -> bool:
    """Refuse a folder before any work; return whether a run in it is taken up again.

    Raises:
        OutputError: There is a run already, none to resume, or one of another configuration.
    """
    try:
        held = path.is_dir() and any(path.iterdir())
        taken_up = held and (path / CONFIG).exists()
    except (OSError, ValueError) as error:  # names too long, null bytes, no permission
        raise OutputError(f"cannot use {path}: {error}", "choose another --out") from error
    if resume and taken_up:
        _same(path, config)
        return True
    if resume and held:
        stored(path)  # refuses: something else is in it
    if taken_up and not overwrite:
        raise OutputError(
            f"{path} holds a training run already",
            "go on with it by --resume, choose another --out, or replace it by --overwrite",
        )
    check_output(path, overwrite=overwrite)
    return False


def make(path: Path, config: TrainingConfig, *, again: bool) -> Path | None:
    """Write the configuration into the run's folder; an older run in it is put aside.

    Returns:
        What has to go if the run cannot begin after all, or None for a run taken up again.
    """
    if again:
        outputs.put(path / CONFIG, config.toml().encode())
        return None
    path = path.resolve()
    made = next((one for one in reversed([path, *path.parents]) if not one.exists()), path)
    path.mkdir(parents=True, exist_ok=True)
    _retire(path)
    outputs.put(path / CONFIG, config.toml().encode())
    return made


@contextmanager
def claimed(path: Path, config: TrainingConfig, *, again: bool) -> Iterator[Callable[[], None]]:
    """Make the folder; leave it as it was if the run fails before its first update is told.

    Yields:
        What to call after an update.
    """
    if (path / LOCK).exists():  # left by a crash, or held by a run that goes on
        _locked(path).close()
    made, done = make(path, config, again=again), False
    lock = _locked(path)

    def told() -> None:
        nonlocal done
        if not done:
            begun(path)
        done = True

    try:
        yield told
    except BaseException:
        if not done and made is not None:
            abandon(path, made)
        raise
    finally:
        lock.close()
        (path / LOCK).unlink(missing_ok=True)


def _locked(path: Path) -> IO[bytes]:
    """Hold the folder against a second process that would train into it.

    Raises:
        OutputError: Another process holds it.
    """
    held = f"another process trains into {path}"
    return locking.hold(path / LOCK, held, "wait for it, or choose another --out")


def begun(path: Path) -> None:
    """Remove the older run that was put aside: the new one has made its first update."""
    shutil.rmtree(path / RETIRED, ignore_errors=True)


def abandon(path: Path, made: Path) -> None:
    """Remove a run that did not begin, and the parents made for it; put an older one back."""
    _empty(path)
    if (path / RETIRED).is_dir():
        for old in (path / RETIRED).iterdir():
            old.rename(path / old.name)
        (path / RETIRED).rmdir()
    if made == path.resolve() and not any(path.iterdir()):
        path.rmdir()
    elif made != path.resolve():
        shutil.rmtree(made, ignore_errors=True)


def _retire(path: Path) -> None:
    """Put what a folder holds aside, unless a run is aside already that none has replaced."""
    if (path / RETIRED).is_dir():
        _empty(path)
    elif held := list(path.iterdir()):  # the folder itself may be a mount
        (path / RETIRED).mkdir()
        for old in held:
            old.rename(path / RETIRED / old.name)


def _empty(path: Path) -> None:
    for old in [one for one in path.iterdir() if one.name != RETIRED]:
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def stored(path: Path) -> dict[str, Any]:
    """Return the tables of a run's configuration.

    Raises:
        OutputError: There is no run in this folder.
    """
    if not os.path.exists(path / CONFIG):  # noqa: PTH110 - unlike pathlib's it never raises
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
