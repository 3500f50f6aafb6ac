"""How many images a pass takes, and how many processes decode them."""

import os

import torch

SIDE = 224 * 224  # pixels; batches are chosen by pixels
ON_CPU, ON_DEVICE = 8 * SIDE, 256 * SIDE  # pixels of a pass that are enough to keep it busy
MOST = {"cpu": 64}
MOST_ON_DEVICE = 256


def batch_size(asked: int, shape: tuple[int, int, int], device: torch.device) -> int:
    """Return how many images go through a pass: what was asked for, or by device and size.

    >>> batch_size(0, (3, 224, 224), torch.device("cpu"))
    8
    >>> batch_size(0, (3, 1024, 1024), torch.device("cpu"))
    1
    """
    if asked:
        return asked
    budget = ON_CPU if device.type == "cpu" else ON_DEVICE
    fit = max(1, budget // (shape[1] * shape[2]))
    return min(1 << (fit.bit_length() - 1), MOST.get(device.type, MOST_ON_DEVICE))


def decoders(asked: int, device: torch.device, cores: int) -> int:
    """Return how many processes decode: what was asked for, or by device.

    Args:
        asked: Their number, or -1 to choose.
        device: Where the passes run; a CPU has no core to spare for decoding.
        cores: Cores of this process.
    """
    if asked >= 0:
        return asked
    return 0 if device.type == "cpu" else max(1, min(8, cores - 1))


def cores() -> int:
    """Return the cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
