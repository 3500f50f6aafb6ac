"""Work on a file beside other work: hashes and checksums let other threads run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Outcome(Generic[T]):
    value: T
    error: Exception | None = None


@contextmanager
def working(job: Callable[[threading.Event], T]) -> Iterator[Callable[[], T]]:
    """Do a job in a thread; the function yielded waits for what it returns, or raises its error.

    Leaving the context gives up what is not finished.

    Args:
        job: Looks at the event it is given now and then, and ends early once that is set.
    """
    stop, outcome = threading.Event(), _Outcome[T]()

    def run() -> None:
        try:
            outcome.value = job(stop)
        except Exception as error:  # noqa: BLE001 - raised where the outcome is asked for
            outcome.error = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        if outcome.error is not None:
            raise outcome.error from None
        return outcome.value

    try:
        yield result
    finally:
        stop.set()
        thread.join()
