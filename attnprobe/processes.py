"""The processes that share one measurement, as torchrun or `accelerate launch` start them.

They exchange numbers of the CPU only, at the beginning and at the end, so gloo serves on every
machine; each process has a device of its own.
"""

import atexit
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from attnprobe.errors import AttnprobeError

PATIENCE = timedelta(days=3)  # one share may take long; a process that died is noticed at once
PULSE = 0.02  # seconds between two looks at whether the others have come


@dataclass(frozen=True)
class World:
    """The processes of a measurement.

    Attributes:
        rank: Number of this process.
        count: Processes in all.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def everywhere(self, item: Any) -> list[Any]:
        """Return the items of all processes, in their order, in each of them."""
        if self.count == 1:
            return [item]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        with _meeting():
            dist.all_gather_object(found, item)
        return found

    def gathered(self, item: Any) -> list[Any]:
        """Return the items of all processes in the main one, and nothing in the others."""
        if self.count == 1:
            return [item]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count if self.main else []
        with _meeting():
            dist.gather_object(item, found if self.main else None)
        return found

    def shared(self, item: Any) -> Any:
        """Return the main process's item in each of them."""
        if self.count == 1:
            return item
        import torch.distributed as dist

        held = [item]
        with _meeting():
            dist.broadcast_object_list(held)
        return held[0]

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return this process's contiguous share of `items`, without gaps or duplicates.

        >>> World(1, 3).share(range(7))
        range(3, 5)
        """
        size, rest = divmod(len(items), self.count)
        start = self.rank * size + min(self.rank, rest)
        return items[start : start + size + (self.rank < rest)]


def launched() -> int:
    """Return how many processes a launcher says that there are; 1 without one."""
    told = os.environ.get("WORLD_SIZE", "1")
    return int(told) if told.isdigit() and "RANK" in os.environ else 1


def joined() -> World:
    """Join the processes that a launcher started; alone without one.

    Raises:
        AttnprobeError: The others cannot be reached.
    """
    if launched() == 1:
        return World()
    import torch.distributed as dist

    if not dist.is_initialized():
        try:
            dist.init_process_group("gloo", timeout=PATIENCE)
            atexit.register(dist.destroy_process_group)
        except (RuntimeError, ValueError) as error:
            raise AttnprobeError(
                f"the {launched()} processes cannot reach one another: {error}",
                "start them with torchrun or accelerate launch, on machines that see each other",
            ) from error
    return World(dist.get_rank(), dist.get_world_size())


def local_rank() -> int:
    """Return the number of this process on its machine, which chooses its device."""
    told = os.environ.get("LOCAL_RANK", "0")
    return int(told) if told.isdigit() else 0


@contextmanager
def _meeting() -> Iterator[None]:
    """Wait for the others before a call to all of them, and say what a broken connection means.

    Unlike such calls themselves, this hears signals while it waits.
    """
    import torch.distributed as dist

    try:
        work = dist.barrier(async_op=True)
        while work is not None and not work.is_completed():
            time.sleep(PULSE)
        if work is not None:
            work.wait()
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise AttnprobeError(
            f"another process of this measurement has ended ({reason})",
            "see its own message; what was measured is kept: give the same command with --resume",
        ) from error
