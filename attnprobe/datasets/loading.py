"""Batches by worker processes: the same tensors for any number of them."""

import signal
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from attnprobe.datasets.order import Batches
from attnprobe.datasets.trainset import Key, TrainSet
from attnprobe.errors import AttnprobeError


class Loader:
    """Yields the batches of a DataLoader; an error of a worker arrives as it was raised.

    Attributes:
        data: The DataLoader behind it.
    """

    def __init__(self, data: DataLoader) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches; worker processes live until the last one, or until it is closed.

        Raises:
            ImagesError: Too many images cannot be read.
        """
        error = yield from self._batches()
        if error is not None:
            raise error

    def _batches(self) -> Generator[dict[str, Tensor], None, AttnprobeError | None]:
        """Yield batches and return the first error: raised here, it would hold the workers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forking and the number of cores
            batches = iter(self.data)
        for batch in batches:
            if isinstance(batch, AttnprobeError):
                return batch
            yield batch
        return None


def loader(trainset: TrainSet, batches: Batches, *, workers: int, pin: bool) -> Loader:
    """Return an iterable of batches, one for each micro-batch of `batches`.

    Args:
        trainset: Images as views.
        batches: Which of them, in which order.
        workers: Processes that decode; 0 decodes in this one.
        pin: Put batches where a CUDA device copies them from in the background.

    Raises:
        AttnprobeError: The number of workers is negative.
    """
    if workers < 0:
        raise AttnprobeError(f"{workers} workers cannot work", "give 0 or more workers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = DataLoader(
            _Caught(trainset),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # or it would draw from the global one
        )
    return Loader(data)


class _Caught(Dataset):
    """Returns an error in place of a batch, since workers' errors arrive as tracebacks."""

    def __init__(self, trainset: TrainSet) -> None:
        self.trainset = trainset

    def __len__(self) -> int:
        return len(self.trainset)

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        try:
            return self.trainset.__getitems__(keys)
        except AttnprobeError as error:
            return [error]


def _collate(items: list[Any]) -> Any:
    return items[0] if isinstance(items[0], AttnprobeError) else default_collate(items)


def _start_worker(worker: int) -> None:
    del worker
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a group: the main process decides
        signal.signal(number, signal.SIG_IGN)
