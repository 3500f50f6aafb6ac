"""The forward passes of a measurement: batches go in, what each one gave comes out.

Decoding runs ahead in worker processes; bytes, not floats, go to the device, where they are
normalised. A batch that does not fit the memory is halved, and those after it are, too.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from attnprobe.capture import Taps, capture
from attnprobe.errors import AttnprobeError
from attnprobe.graphs import Graphs
from attnprobe.images import ImageBatch
from attnprobe.images.decoding import normalise
from attnprobe.mapmaking import MapMaker
from attnprobe.measuring import Batch, Measurement
from attnprobe.precision import Precision
from attnprobe.tensors import AttentionInputs, Features
from attnprobe.types import LayerInfo

SIDE = 224 * 224  # pixels; batches are chosen by pixels
ON_CPU, ON_DEVICE = 8 * SIDE, 256 * SIDE  # pixels of a pass that are enough to keep it busy
MOST = {"cpu": 64}
MOST_ON_DEVICE = 256
EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass
class Passes:
    """Runs a model on batches and measures it.

    Attributes:
        module: The model, in eval mode on its device.
        measurement: Reduces what its layers report.
        maker: Takes attention maps beside it.
        precision: How the model computes.
        size: Most images of a pass; halved where memory is short.
        graphs: Replays recorded passes, or None.
    """

    module: nn.Module
    measurement: Measurement
    maker: MapMaker
    precision: Precision
    size: int
    graphs: Graphs | None = None
    _taps: Taps | None = None
    _first: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._first = next(self.module.parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._first.device

    @property
    def held(self) -> torch.dtype:
        """The type of the weights."""
        return self._first.dtype

    @contextmanager
    def watching(self) -> Iterator["Passes"]:
        """Observe the model while the context is open."""

        def on_attention(inputs: AttentionInputs) -> None:
            self.measurement.on_attention(inputs)
            self.maker.on_attention(inputs)

        def on_features(features: Features) -> None:
            self.measurement.on_features(features)

        with torch.inference_mode(), capture(self.module, on_attention, on_features) as taps:
            self._taps = taps
            yield self

    def measured(self, batch: ImageBatch) -> Iterator[tuple[ImageBatch, Batch]]:
        """Pass a batch through the model, in pieces where it has to be.

        Yields:
            The images of each piece, and what they gave.

        Raises:
            AttnprobeError: Not even one image fits the memory.
        """
        waiting = list(pieces(batch, self.size))
        while waiting:
            piece = waiting.pop(0)
            try:
                yield piece, self.one(piece)
            except RuntimeError as error:
                if not _exhausted(error):
                    raise
                self._halve(len(piece.ids), error)
                waiting = [half for whole in (piece, *waiting) for half in pieces(whole, self.size)]

    def one(self, batch: ImageBatch, precision: Precision | None = None) -> Batch:
        """Return what one pass gives.

        Args:
            batch: Images, all of them in one pass.
            precision: Instead of the usual one.
        """
        if not batch.ids:
            return Batch()
        self.measurement.drop()
        self.maker.begin_batch(batch)
        with (precision or self.precision).running(self.device):
            layers = self._pass(self._input(batch), plain=precision is not None)
        return self.measurement.take(layers, self.maker.take())

    def _pass(self, x: Tensor, *, plain: bool) -> list[LayerInfo]:
        """Run the model, from its recording where there is one; return the layers."""
        taps = self._taps
        if taps is None:
            return []
        taps.layers.clear()
        if self.graphs is None or plain or self.maker.busy:
            self.module(x)
            return taps.layers
        self.graphs.run(x, self.module, lambda: taps.layers)
        return self.graphs.layers(taps.layers)

    def _input(self, batch: ImageBatch) -> Tensor:
        pixels = batch.pixels.to(self.device, non_blocking=True)
        x = pixels if batch.spec is None else normalise(pixels, batch.spec)
        return x.to(self.held)

    def _halve(self, images: int, error: RuntimeError) -> None:
        """Take smaller batches from now on."""
        self.measurement.drop()
        self.maker.take()
        if images == 1:
            raise AttnprobeError(
                f"one image does not fit the memory of {self.device.type} "
                f"({str(error).splitlines()[0][:120]})",
                "use smaller images or --precision bf16, or --device cpu",
            ) from error
        self.size = max(1, images // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


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


def pieces(batch: ImageBatch, size: int) -> Iterator[ImageBatch]:
    """Cut a batch so that no piece has more than `size` images."""
    if len(batch.ids) <= size:
        yield batch
        return
    for start in range(0, len(batch.ids), size):
        part = slice(start, start + size)
        yield replace(
            batch,
            ids=batch.ids[part],
            pixels=batch.pixels[part],
            numbers=batch.numbers[part],
            digests=batch.digests[part],
            skipped=batch.skipped if start == 0 else {},
        )


def ahead(batches: Iterable[ImageBatch], device: torch.device) -> Iterator[ImageBatch]:
    """Put batches on a CUDA device one ahead of the pass that uses them; elsewhere do nothing.

    Pinned bytes are copied on a stream of their own, beside the pass that is under way.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    before: ImageBatch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            pixels = batch.pixels.pin_memory().to(device, non_blocking=True)
        if before is not None:
            yield before
        torch.cuda.current_stream(device).wait_stream(stream)
        pixels.record_stream(torch.cuda.current_stream(device))
        before = replace(batch, pixels=pixels)
    if before is not None:
        yield before


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


def _exhausted(error: RuntimeError) -> bool:
    told = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(text in told for text in EXHAUSTED)
