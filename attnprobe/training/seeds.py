"""Every draw of an update comes from (seed, update, process): nothing to save, nothing to drift."""

import random

import numpy as np
import torch

from attnprobe.objectives import Clock


def seed_update(seed: int, clock: Clock, rank: int) -> None:
    """Seed the generators that dropout, stochastic depth and mixing use in one update.

    Args:
        seed: The run's seed.
        clock: The update, and the part of its batch.
        rank: The process, so that processes draw differently.
    """
    drawn = np.random.SeedSequence([seed, clock.step, clock.micro, rank]).generate_state(3)
    torch.manual_seed(int(drawn[0]))  # every device's generator
    random.seed(int(drawn[1]))
    np.random.seed(int(drawn[2]))  # noqa: NPY002 - timm draws from numpy's global generator
