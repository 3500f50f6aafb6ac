"""The callbacks of training libraries that call a probe; each library is imported on use."""

import importlib
import math
import sys
from typing import TYPE_CHECKING, Any

from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    from attnprobe.probing import AttentionProbe

LIGHTNING = ("lightning.pytorch", "pytorch_lightning")  # one library under two names


def lightning(probe: "AttentionProbe") -> Any:
    """Return a Lightning callback that calls `probe` before, after every update, and at the end.

    Raises:
        AttnprobeError: Lightning is not installed.
    """
    names = sorted(LIGHTNING, key=lambda name: name not in sys.modules)
    library = next((found for name in names if (found := _imported(name))), None)
    if library is None:
        raise AttnprobeError("Lightning is not installed", "pip install lightning")

    done: list[float | None] = [None]  # epochs, as of the last update

    def on_train_start(trainer: Any, module: Any) -> None:
        del module
        probe(trainer.global_step, trainer.current_epoch)

    def on_train_batch_end(
        trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        del module, outputs, batch
        batches = trainer.num_training_batches
        known = math.isfinite(batches)
        done[0] = trainer.current_epoch + (batch_idx + 1) / batches if known else None
        probe(trainer.global_step, done[0])

    def on_fit_end(trainer: Any, module: Any) -> None:
        del module
        probe(trainer.global_step, done[0], force=True)

    return library.callbacks.LambdaCallback(
        on_train_start=on_train_start,
        on_train_batch_end=on_train_batch_end,
        on_fit_end=on_fit_end,
    )


def transformers(probe: "AttentionProbe") -> Any:
    """Return a transformers callback that calls `probe` before, after every update, and at the end.

    Raises:
        AttnprobeError: transformers is not installed.
    """
    library = _imported("transformers")
    if library is None:
        raise AttnprobeError("transformers is not installed", "pip install transformers")

    def on_step(args: Any, state: Any, control: Any, **others: Any) -> None:
        del args, control, others
        probe(state.global_step, state.epoch)

    def on_train_end(args: Any, state: Any, control: Any, **others: Any) -> None:
        del args, control, others
        probe(state.global_step, state.epoch, force=True)

    callback = library.TrainerCallback()
    callback.on_train_begin = callback.on_step_end = on_step
    callback.on_train_end = on_train_end
    return callback


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
