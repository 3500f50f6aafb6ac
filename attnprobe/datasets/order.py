"""Which images an update sees: a function of (seed, epoch), and of nothing that can be lost."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from attnprobe.errors import AttnprobeError

_STREAM = 0x6F72646572  # "order": apart from other uses of the same seed


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the images in an epoch, a permutation, int64 [count].

    Images are sorted by the raw 64-bit output of PCG64 seeded from (seed, epoch) by a
    SeedSequence. numpy promises both streams for good, unlike `Generator.permutation`, so
    that a run resumes under another version in the order it began with.

    >>> epoch_order(5, 0, 0).tolist()
    [0, 3, 4, 2, 1]
    """
    source = np.random.PCG64(np.random.SeedSequence([seed, epoch, _STREAM]))
    return np.argsort(source.random_raw(count), kind="stable").astype(np.int64, copy=False)


class Batches(Sampler):
    """Batch sampler of one process: a list of (epoch, index) for each micro-batch.

    An epoch has count // batch_size updates; what is left over sits out, other images each
    epoch. An update's images are cut into `accumulate` micro-batches, and each of them into
    `world` parts, of which process `rank` takes its own: over all processes and micro-batches
    an update sees the same images in the same order, however it is cut.

    Args:
        count: Images of the set.
        batch_size: Images of one update, over all processes and micro-batches.
        seed: Of the order.
        start: First update, from 0.
        stop: Update before which to stop.
        rank: This process.
        world: Processes.
        accumulate: Micro-batches of an update.

    Raises:
        AttnprobeError: The set has fewer images than a batch, or a batch cannot be cut.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        _check(count, batch_size, world, accumulate)
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start, self.stop = start, max(start, stop)
        self.rank, self.world, self.accumulate = rank, world, accumulate

    @property
    def updates(self) -> int:
        """Updates of one epoch."""
        return self.count // self.batch_size

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the micro-batches from update `start` on."""
        part = self.batch_size // (self.world * self.accumulate)
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start, self.stop):
            if step // self.updates != epoch:
                epoch = step // self.updates
                order = epoch_order(self.count, self.seed, epoch)
            first = step % self.updates * self.batch_size + self.rank * part
            for micro in range(self.accumulate):
                begin = first + micro * self.world * part
                yield [(epoch, index) for index in order[begin : begin + part].tolist()]


def _check(count: int, batch_size: int, world: int, accumulate: int) -> None:
    if batch_size < 1 or world < 1 or accumulate < 1:
        raise AttnprobeError(
            f"a batch of {batch_size} images for {world} processes in {accumulate} parts is none",
            "give a batch size, processes and accumulation of 1 or more",
        )
    if count < batch_size:
        raise AttnprobeError(
            f"{count} images are fewer than one batch of {batch_size}",
            f"set the batch size to {max(count, 1)} or less",
        )
    if batch_size % (world * accumulate):
        cut = world * accumulate
        raise AttnprobeError(
            f"a batch of {batch_size} images cannot be cut for {world} processes and "
            f"{accumulate} accumulated parts",
            f"set the batch size to a multiple of {cut}, such as {max(1, batch_size // cut) * cut}",
        )
