"""A run's folder: made, checked against the configuration, before anything runs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.errors import OutputError
from attnprobe.results.folders import check_output
from attnprobe.training import config as configs
from attnprobe.training import outputs, states
from attnprobe.training.config import TrainingConfig
from attnprobe.training.sections import FREE

if TYPE_CHECKING:
    from accelerate import Accelerator

CONFIG = "config.toml"


def prepare(
    path: Path,
    config: TrainingConfig,
    accelerator: "Accelerator",
    *,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None],
) -> TrainingConfig:
    """Make a new run's folder, or check that an old one is of the same run.

    Raises:
        OutputError: There is a run already, none to resume, or one of another configuration.
    """
    if accelerator.is_main_process:
        if resume and (path / CONFIG).exists():
            _same(path, config)
            if not states.steps(path):
                say("no state was saved before the interruption: beginning again")
        else:
            _fresh(path, config, overwrite=overwrite, resume=resume)
        outputs.put(path / CONFIG, config.toml().encode())
    accelerator.wait_for_everyone()
    return config


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


def _fresh(path: Path, config: TrainingConfig, *, overwrite: bool, resume: bool) -> None:
    if resume and path.exists() and any(path.iterdir()):
        stored(path)  # refuses: something else is in it
    check_output(path, overwrite=overwrite)
    path.mkdir(parents=True, exist_ok=True)
    for old in path.iterdir():  # the folder itself may be a mount
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def _same(path: Path, config: TrainingConfig) -> None:
    """Refuse a configuration that would make the resumed run another one."""
    before = configs.configure(config.objective, type(config.options), stored(path))
    told = [line for line in configs.differences(before, config) if line.split()[0] not in FREE]
    if told:
        raise OutputError(
            f"{path} was begun with other options: {'; '.join(told)}",
            "resume with the same options, or train into another --out",
        )
