"""What a checkpoint is trained to do: one file an objective, each with one `OBJECTIVE`.

An objective turns an image into views, a timm backbone into a trainable module, and a batch
of views into a loss. Everything random about an image (crops, masks) is drawn in `views`,
from generators that are seeded for every image of every epoch, so that it depends neither on
workers nor on processes nor on where a run was interrupted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor, nn

from attnprobe import plugins

Views = Callable[[Image.Image], dict[str, Tensor]]
Batch = dict[str, Tensor]


class Clock(NamedTuple):
    """Where a run stands.

    Attributes:
        step: Updates done.
        steps: Updates of the whole run.
        micro: Which part of the update's batch this is, from 0, when gradients accumulate.
    """

    step: int
    steps: int
    micro: int = 0

    @property
    def progress(self) -> float:
        """Finished share of the run, from 0 to 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class Framing:
    """What views need to know about the model and the data.

    Attributes:
        size: Height and width of the model's input in pixels.
        patch: Height and width of one patch of the patch embedding in pixels.
        mean: Per-channel mean of the normalisation.
        std: Per-channel standard deviation of the normalisation.
        interpolation: PIL interpolation of the model's evaluation transform.
        classes: Number of classes of the data; 0 without labels.
    """

    size: tuple[int, int]
    patch: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    classes: int = 0


@dataclass(frozen=True)
class Objective:
    """How to train for one purpose.

    Attributes:
        name: Public name: the file's name.
        title: What it is called in sentences, with its source.
        kind: What the model card says: mim, contrastive, supervised, ...
        labelled: Whether batches need labels.
        config: Frozen dataclass of its options; `options.option` gives each its help.
        views: (options, framing) -> image -> tensors by name, one image without batch axis.
        build: (backbone, options, framing) -> module with the backbone as `.encoder`.
        step: (module, batch, clock) -> {"loss": scalar, ...}; other scalars are logged.
        mix: (options, framing) -> (batch, clock) -> batch, on the device, or None.
        pictures: (module, batch, options, framing) -> uint8 [n, panels, 3, h, w] for people,
            or None; the module is in eval mode and gradients are off.
        decay_biases: Whether weight decay acts on biases, norms and tokens too.
    """

    name: str
    title: str
    kind: str
    labelled: bool
    config: type
    views: Callable[[Any, Framing], Views]
    build: Callable[[nn.Module, Any, Framing], nn.Module]
    step: Callable[[nn.Module, Batch, Clock], dict[str, Tensor]]
    mix: Callable[[Any, Framing], Callable[[Batch, Clock], Batch] | None] | None = None
    pictures: Callable[[nn.Module, Batch, Any, Framing], Tensor] | None = None
    decay_biases: bool = False

    @property
    def encoder(self) -> Callable[[nn.Module], nn.Module]:
        """Return the part of the module that is measured, evaluated and kept."""
        return attrgetter("encoder")


def names() -> tuple[str, ...]:
    """Names of all objectives."""
    return plugins.names(__name__)


def load(name: str) -> Objective:
    """Return an objective.

    Raises:
        AttnprobeError: There is no objective of that name.
    """
    return plugins.load(__name__, name, "OBJECTIVE")
