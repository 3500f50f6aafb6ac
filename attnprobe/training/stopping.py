"""Ask a run to stop at the end of an update: Ctrl-C once, SIGTERM, or a machine taken away."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by a signal, read between updates.

    Attributes:
        asked: Whether to stop.
    """

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; a second Ctrl-C does not wait."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while the context lasts."""
    request = StopRequest()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, request)
        except ValueError:  # not the main thread: somebody else handles signals
            continue
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
