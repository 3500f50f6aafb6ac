"""The forward passes of a measurement: batches go in, what each one gave comes out.

Decoding runs ahead in worker processes; bytes, not floats, go to the device, where they are
normalised. A batch that does not fit the memory is halved, and those after it are, too.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from attnprobe.attention import Reader
from attnprobe.attention.given import Given
from attnprobe.capture import Taps, capture
from attnprobe.errors import AttnprobeError
from attnprobe.graphs import Graphs
from attnprobe.images import ImageBatch
from attnprobe.images.decoding import normalise
from attnprobe.mapmaking import MapMaker
from attnprobe.masking import Hiding
from attnprobe.measuring import Batch, Measurement
from attnprobe.precision import Precision, deviation
from attnprobe.tensors import AttentionInputs, Features
from attnprobe.types import LayerInfo

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
        readers: The user's own attention readers.
        grid: Where the tokens lie, as the user states it (see `capture`), or None.
        hiding: Hides a part of every image, or None.
    """

    module: nn.Module
    measurement: Measurement
    maker: MapMaker
    precision: Precision
    size: int
    graphs: Graphs | None = None
    readers: Sequence[Reader] = ()
    grid: Given | None = None
    hiding: Hiding | None = None
    _taps: Taps | None = None
    _first: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._first = next(self.module.parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._first.device

    @property
    def transform(self) -> dict[str, str]:
        """What becomes of images beside their preprocessing, as provenance states it."""
        return {"mask": self.hiding.words} if self.hiding else {}

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

        watched = capture(
            self.module,
            on_attention,
            on_features,
            readers=self.readers,
            grid=self.grid,
            kept=self.hiding.kept if self.hiding else None,
        )
        hidden = self.hiding.watching() if self.hiding else nullcontext()
        with torch.inference_mode(), hidden, watched as taps:
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
        if self.hiding:
            self.hiding.begin(batch.ids, self.device)
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

    def deviation(
        self, batch: ImageBatch, candidate: Precision, *, forgiving: bool
    ) -> dict[str, float]:
        """Return what a smaller type changes on some images, by metric; as many as fit.

        Args:
            batch: The images.
            candidate: The smaller type.
            forgiving: Whether values that are no numbers are a deviation and not an error.
        """
        metrics, options = self.measurement.metrics, self.measurement.options
        while True:
            try:
                full = self.one(batch, Precision("fp32"))
                try:
                    low = self.one(batch, candidate)
                except AttnprobeError:
                    if forgiving:
                        return {"values that are no numbers": math.inf}
                    raise
                return deviation(full, low, metrics, options)
            except RuntimeError as error:
                if not _exhausted(error):
                    raise
                self._halve(len(batch.ids), error)
                batch = next(pieces(batch, self.size))

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


def _exhausted(error: RuntimeError) -> bool:
    told = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(text in told for text in EXHAUSTED)
