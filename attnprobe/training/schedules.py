"""Optimiser and learning-rate schedule of a run, both timm's."""

from inspect import isclass, signature
from typing import Any

import torch
from timm.optim._optim_factory import create_optimizer_v2
from timm.optim._optim_factory import get_optimizer_info as optimizer_info
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from attnprobe.errors import AttnprobeError
from attnprobe.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, value: float) -> float:
    """Scale a learning rate to the batch of all processes (Goyal et al. 2017)."""
    return value * config.loop.batch_size / config.optimizer.lr_batch


def optimizer_of(
    module: nn.Module, config: TrainingConfig, *, decay_biases: bool
) -> torch.optim.Optimizer:
    """Return timm's optimiser for a trainable module.

    Args:
        module: Its `no_weight_decay()` names what is not decayed, beside 1-D parameters.
        config: The run's configuration.
        decay_biases: Decay biases, norms and tokens too (MoCo v3).

    Raises:
        AttnprobeError: timm has no such optimiser.
    """
    section = config.optimizer
    try:
        known = optimizer_info(section.opt)
    except ValueError as error:
        raise AttnprobeError(
            f"timm has no optimiser {section.opt!r}", "try adamw, sgd, lamb or lars"
        ) from error
    extra: dict[str, Any] = {}
    if known.has_betas:
        extra["betas"] = _betas(section.betas, known.opt_class)
    if known.has_eps:
        extra["eps"] = section.eps
    if section.opt == "adamw":
        extra["fused"] = True
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        return create_optimizer_v2(
            trained if decay_biases else module,
            opt=section.opt,
            lr=learning_rate(config, section.lr),
            weight_decay=section.weight_decay,
            layer_decay=None if section.layer_decay == 1.0 else section.layer_decay,
            **extra,
        )
    except Exception as error:  # each optimiser raises whatever it meets
        raise AttnprobeError(
            f"the optimiser {section.opt} cannot be built ({error})",
            "change --opt, or the option that this names",
        ) from error


def _betas(given: list[float], optimizer: Any) -> tuple[float, ...]:
    """Return as many decay rates as the optimiser takes.

    Raises:
        AttnprobeError: There are more or fewer.
    """
    default = signature(optimizer).parameters["betas"].default if isclass(optimizer) else given
    if isinstance(default, tuple) and len(given) != len(default):
        raise AttnprobeError(
            f"{optimizer.__name__} takes {len(default)} betas, got {len(given)}",
            f"give --betas {','.join(map(str, default))} or others",
        )
    return tuple(given)


def schedule_of(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, *, steps: int, steps_per_epoch: int
) -> Scheduler:
    """Return timm's schedule by update; `step_update(t)` sets the rate of update t."""
    section = config.schedule
    warmup = round(min(section.warmup_epochs * steps_per_epoch, steps - 1))
    shared: dict[str, Any] = {
        "warmup_t": warmup,
        "warmup_lr_init": learning_rate(config, section.warmup_lr),
        "t_in_epochs": False,
    }
    if section.sched == "cosine":
        return CosineLRScheduler(
            optimizer,
            t_initial=max(2, steps - warmup if section.warmup_prefix else steps),
            lr_min=learning_rate(config, section.min_lr),
            warmup_prefix=section.warmup_prefix,
            cycle_limit=1,
            **shared,
        )
    falls = section.decay_epochs if section.sched == "multistep" else []
    return MultiStepLRScheduler(
        optimizer,
        # timm lowers the rate one update before the number it is given
        decay_t=[round(min(epoch * steps_per_epoch, steps)) + 1 for epoch in falls],
        decay_rate=section.decay_rate,
        warmup_prefix=False,  # the epochs count from the start of the run
        **shared,
    )
