"""What the sections share: settings, models, clocks, and interleaved rounds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

import attnprobe
from attnprobe.types import CheckpointSpec, LoadLedger

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SIZES = ("full", "quick", "toy")
BARE, WHOLE, PER_IMAGE = "bare forward", "whole run", "per image"

Measure = Callable[[], dict[str, float]]  # seconds by quantity
Measured = dict[str, list[dict[str, float]] | str]  # by provider: one entry a round, or why none
OUT_OF_MEMORY = "out of memory"


class PeerError(Exception):
    """Another code refused the work; the message says why."""


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        device: cpu, cuda, cuda:1, ...
        precision: fp32, bf16 or fp16 of every forward pass.
        batch: Images in one forward pass; 0 leaves it to the case (64 on CUDA).
        images: Images in one run; 0 leaves it to the case (four batches on CUDA).
        rounds: Rounds; 0 leaves it to the case.
        size: full, quick (below three minutes on one core) or toy (for the tests).
        memory: What a process of the memory section may take beyond the loaded model, GiB; CPU.
        clock: wall, or cpu: seconds of this process, which others on the machine disturb less.
    """

    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 0
    images: int = 0
    rounds: int = 0
    size: str = "full"
    memory: float = 8.0
    clock: str = "wall"

    @property
    def cuda(self) -> bool:
        """Whether the work is done by a CUDA device."""
        return self.device.startswith("cuda")

    def batch_of(self, wished: int) -> int:
        """Images in one forward pass, where a case wishes for some on a CPU."""
        return self.batch or (64 if self.cuda and self.size == "full" else wished)

    def images_of(self, wished: int, batch: int) -> int:
        """Images in one run, where a case wishes for some on a CPU."""
        return self.images or (4 * batch if self.cuda and self.size == "full" else wished)

    def analyze(self, model: attnprobe.LoadedModel, images: Any, **changes: Any) -> Any:
        """Run analyze at this device and precision."""
        given = {"device": self.device, "precision": self.precision, **changes}
        return attnprobe.analyze(model, images, **given)


def build(name: str, settings: Settings, **options: Any) -> attnprobe.LoadedModel:
    """Return a timm model with seeded random weights on the device: cost does not depend on them.

    Args:
        name: timm's name.
        settings: Where it runs.
        **options: Arguments of the model, such as img_size and depth.
    """
    torch.manual_seed(0)
    module: Any = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    rows, cols = module.patch_embed.img_size
    spec = CheckpointSpec(name, name, input_size=(3, rows, cols))
    return attnprobe.LoadedModel(spec, module.to(settings.device), LoadLedger())


def pictures(model: attnprobe.LoadedModel, count: int) -> Tensor:
    """Return seeded noise of the model's input size, float32 [count, 3, h, w], on the CPU."""
    return torch.randn(count, *model.spec.input_size, generator=torch.Generator().manual_seed(1))


@contextmanager
def passes(settings: Settings) -> Iterator[None]:
    """Forward passes as analyze makes them: inference mode, autocast at the precision."""
    dtype, kind = PRECISIONS[settings.precision], settings.device.split(":")[0]
    with (
        torch.inference_mode(),
        torch.autocast(kind, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        yield


class Clock:
    """Notes when how many images were done; it is analyze's `progress`."""

    def __init__(self, settings: Settings) -> None:
        self.cuda, self.read = settings.cuda, CLOCKS[settings.clock]
        self.begin = self.now()
        self.marks: list[tuple[int, float]] = []

    def now(self) -> float:
        """Seconds, after the device has finished."""
        if self.cuda:
            torch.cuda.synchronize()
        return self.read()

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of `total` images are done."""
        del total
        self.marks.append((done, self.now()))

    def seconds(self) -> dict[str, float]:
        """Whole run; one more image, from the first batch to the last; what follows the last."""
        end = self.now()
        found = {WHOLE: end - self.begin, "after the last batch": end - self.marks[-1][1]}
        (first, start), (last, stop) = self.marks[0], self.marks[-1]
        return found | ({PER_IMAGE: (stop - start) / (last - first)} if last > first else {})


def bare(model: nn.Module, images: Tensor, batch: int, settings: Settings) -> dict[str, float]:
    """Time the forward pass alone over the same tensors in the same batches."""
    clock, done = Clock(settings), 0
    with passes(settings):
        for part in images.split(batch):
            model(part.to(settings.device))
            done += len(part)
            clock(done, len(images))
    return {key: value for key, value in clock.seconds().items() if key != "after the last batch"}


def timed(call: Callable[[], object], settings: Settings) -> dict[str, float]:
    """Time one call, the device's work included."""
    clock = Clock(settings)
    call()
    return {WHOLE: clock.now() - clock.begin}


def interleave(providers: dict[str, Measure], rounds: int, *, warm: bool = True) -> Measured:
    """Run all providers round by round, in alternating order; who fails drops out.

    Args:
        providers: What is timed, by name.
        rounds: Rounds that count.
        warm: Whether a round that does not count goes first.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in providers}
    failed: dict[str, str] = {}
    for turn in range(-1 if warm else 0, rounds):
        left = [name for name in providers if name not in failed]
        for name in left if turn % 2 else left[::-1]:
            try:
                seconds = providers[name]()
            except PeerError as error:
                failed[name] = str(error)
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed[name] = OUT_OF_MEMORY
                continue
            if turn >= 0:
                runs[name].append(seconds)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return runs | failed


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CUDA device or a CPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    said = str(error).lower()
    words = ("out of memory", "can't allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in said for word in words)
