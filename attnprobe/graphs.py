"""CUDA graphs: a pass with its measuring is recorded once and replayed for batches of one shape.

Small models on fast cards spend their time launching kernels; a graph launches them all at once.
Only what is equal is replayed: the first replay is compared with the pass itself, and where it
differs, or where something cannot be recorded, passes go on as they are, with a warning.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnprobe.measuring import Held, Measurement
from attnprobe.types import LayerInfo

CLOSE = 1e-4  # of the largest value: what the order of sums may change
WARM_UPS = 2  # passes before recording, for what libraries set up on first use

Pass = Callable[[Tensor], None]
Record = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass
class Graphs:
    """A recorded pass, and whether there can be one.

    Attributes:
        measurement: What the pass feeds.
        record: Runs a function and returns what runs it again; on CUDA by a graph.
        usable: Whether recording has not failed.
    """

    measurement: Measurement
    record: Record
    usable: bool = True
    _x: Tensor | None = None
    _replay: Callable[[], None] | None = None
    _held: Held | None = None
    _layers: list[LayerInfo] = field(default_factory=list)

    def run(self, x: Tensor, forward: Pass, layers: Callable[[], list[LayerInfo]]) -> None:
        """Pass a batch through the model, by the recording if it is of its shape.

        Args:
            x: Images on the device.
            forward: The pass itself; the layers report to the measurement while it runs.
            layers: Returns the layers that reported.
        """
        if not self.usable:
            forward(x)
        elif self._replay is None:
            self._begin(x, forward, layers)
        elif self._x is not None and x.shape == self._x.shape and x.dtype == self._x.dtype:
            self._again(x)
        else:
            forward(x)

    def layers(self, reported: list[LayerInfo]) -> list[LayerInfo]:
        """Return the layers of the last pass; a replay reports none."""
        return reported or self._layers

    def _again(self, x: Tensor) -> None:
        if self._x is None or self._replay is None or self._held is None:
            return
        self._x.copy_(x)
        self._replay()
        self.measurement.restore(self._held)

    def _begin(self, x: Tensor, forward: Pass, layers: Callable[[], list[LayerInfo]]) -> None:
        """Run one pass, record it, and check that the recording does the same."""
        forward(x)
        plain, self._layers = self.measurement.hold(), list(layers())
        try:
            self._x = x.clone()
            static = self._x

            def recorded() -> None:
                self.measurement.drop()
                forward(static)

            for _ in range(WARM_UPS):
                recorded()
            self._replay = self.record(recorded)
            self._held = self.measurement.hold()
            self._again(x)
            if not self._held.close_to(plain, CLOSE):
                raise RuntimeError("the recording gives other values than the pass")
        except RuntimeError as error:
            self.usable, self._replay, self._x = False, None, None
            warnings.warn(
                f"CUDA graphs are not used: {str(error).splitlines()[0][:200]}", stacklevel=2
            )
        self.measurement.restore(plain)


def by_cuda(function: Callable[[], None]) -> Callable[[], None]:
    """Record a function as a CUDA graph; return what replays it."""
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what runs first must not be recorded
        function()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        function()
    return graph.replay
