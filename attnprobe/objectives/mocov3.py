"""MoCo v3: tell two views of an image from views of other images (Chen et al., ICCV 2021).

Queries go through encoder, projector and predictor; keys through a slow copy of encoder and
projector, which follows the trained ones by a momentum that rises to 1. Every query has to
find its key among the keys of all processes (InfoNCE, both ways).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
import torch.distributed as dist
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2 as transforms

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Batch, Clock, Framing, Objective
from attnprobe.objectives import _backbone as backbone
from attnprobe.objectives import _initial as initial
from attnprobe.objectives import _views as views
from attnprobe.objectives._attention import suited
from attnprobe.objectives._syncbn import SyncBatchNorm1d, processes
from attnprobe.options import option


@dataclass(frozen=True)
class Options:
    """Options of MoCo v3; the defaults are the official ones for ViT."""

    dim: int = option(256, "Channels of the compared vectors.", low=1)
    mlp_dim: int = option(4096, "Width of projector and predictor.", low=1)
    temperature: float = option(0.2, "Divisor of the similarities.", low=0)
    momentum: float = option(0.99, "Momentum of the slow encoder, at the start.", low=0, high=1)
    momentum_cosine: bool = option(True, "Let the momentum rise to 1 along half a cosine.")
    freeze_patch: bool = option(True, "Keep the patch projection at its random values.")
    crop_min: float = option(0.08, "Least share of an image's area in a crop.", low=0)


class MoCo(nn.Module):
    """A backbone with projector and predictor, and the slow copy that makes its keys.

    Args:
        encoder: timm backbone without a head; it returns pooled features.
        options: Options of the objective.
        framing: Input and patch size of the backbone.

    Raises:
        AttnprobeError: The backbone has no patch embedding, or returns no vector an image.
    """

    def __init__(self, encoder: nn.Module, options: Options, framing: Framing) -> None:
        super().__init__()
        self.temperature = options.temperature
        self.start, self.cosine = options.momentum, options.momentum_cosine
        width = _prepare(encoder, options, framing)
        self.encoder = encoder
        self.projector = mlp(3, width, options.mlp_dim, options.dim)
        self.predictor = mlp(2, options.dim, options.mlp_dim, options.dim)
        self.momentum_encoder = copy.deepcopy(encoder).requires_grad_(requires_grad=False)
        self.momentum_projector = copy.deepcopy(self.projector).requires_grad_(requires_grad=False)

    def forward(self, view1: Tensor, view2: Tensor, progress: float, update: bool) -> Tensor:
        """Return the loss, a scalar.

        Args:
            view1: First views, float [batch, 3, height, width].
            view2: Second views of the same images.
            progress: Finished share of the run, 0 to 1.
            update: Whether the slow encoder follows before it makes keys.
        """
        if len(view1) * processes() < 2:
            raise AttnprobeError(
                "MoCo v3 compares images of a batch, but the batch holds a single image",
                "use a batch of two or more images",
            )
        pair = (view1, view2)
        with suited(self, view1):
            query1, query2 = (self.predictor(self.projector(self.encoder(x))) for x in pair)
            with torch.no_grad():
                if update:
                    self._follow(self.momentum(progress))
                key1, key2 = (self.momentum_projector(self.momentum_encoder(x)) for x in pair)
        return self._contrast(query1, key2) + self._contrast(query2, key1)

    def momentum(self, progress: float) -> float:
        """Return the momentum at a finished share of the run."""
        if not self.cosine:
            return self.start
        return 1 - 0.5 * (1 + math.cos(math.pi * progress)) * (1 - self.start)

    def _follow(self, momentum: float) -> None:
        for slow, fast in self._pairs():
            slow.lerp_(fast.detach(), 1 - momentum)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        slow = chain(self.momentum_encoder.parameters(), self.momentum_projector.parameters())
        fast = chain(self.encoder.parameters(), self.projector.parameters())
        return zip(slow, fast, strict=True)

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """InfoNCE of queries against the keys of all processes, times twice the temperature."""
        wide = torch.promote_types(queries.dtype, torch.float32)
        with torch.autocast(queries.device.type, enabled=False):
            queries, keys = (F.normalize(x.to(wide), dim=1) for x in (queries, keys))
            logits = queries @ gathered(keys).T / self.temperature
            first = len(queries) * (dist.get_rank() if processes() > 1 else 0)
            own = torch.arange(len(queries), device=queries.device) + first
            return F.cross_entropy(logits, own) * (2 * self.temperature)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay may leave alone; the official code decays all."""
        return backbone.undecayed(self)


def _prepare(encoder: nn.Module, options: Options, framing: Framing) -> int:
    """Initialise and freeze what MoCo v3 does; return the width of pooled features."""
    _, convolution = backbone.embedding(encoder)
    features = backbone.trial(encoder, framing.size, encoder)
    if features.ndim != 2:
        raise AttnprobeError(
            f"{type(encoder).__name__} returns features of shape {tuple(features.shape)} instead "
            "of one vector an image",
            "build it with num_classes=0 and a pooling (global_pool)",
        )
    if isinstance(encoder, VisionTransformer):
        down, across = framing.patch
        grid = (framing.size[0] // down, framing.size[1] // across)
        initial.moco_encoder(encoder)
        initial.fix_positions(encoder, grid, column_first=False)
    if options.freeze_patch:
        convolution.requires_grad_(requires_grad=False)
    return features.shape[1]


def mlp(layers: int, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return linear layers, normalised over the batch; the last norm learns nothing."""
    widths = [inputs, *[hidden] * (layers - 1), outputs]
    parts: list[nn.Module] = []
    for index in range(layers):
        last = index == layers - 1
        parts.append(nn.Linear(widths[index], widths[index + 1], bias=False))
        parts.append(SyncBatchNorm1d(widths[index + 1], affine=not last))
        if not last:
            parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)


def gathered(keys: Tensor) -> Tensor:
    """Return the keys of all processes in order of rank, without gradient."""
    if processes() == 1:
        return keys
    found = [torch.empty_like(keys) for _ in range(processes())]
    dist.all_gather(found, keys.contiguous())
    return torch.cat(found)


def _views(options: Options, framing: Framing) -> "partial[dict[str, Tensor]]":
    first = _augmentation(options, framing, (views.sometimes(views.Blur(), 1.0),))
    distorted = (views.sometimes(views.Blur(), 0.1), views.sometimes(views.Solarize(), 0.2))
    return partial(_view, first, _augmentation(options, framing, distorted))


def _augmentation(options: Options, framing: Framing, distorted: tuple) -> views.View:
    colours = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    parts = (
        views.crop(framing, options.crop_min),
        views.sometimes(colours, 0.8),
        transforms.RandomGrayscale(0.2),
        *distorted,
        views.flip(0.5),
    )
    return views.compose(framing, parts)


def _view(first: views.View, second: views.View, image: Image.Image) -> dict[str, Tensor]:
    return {"view1": first(image), "view2": second(image)}


def _step(module: nn.Module, batch: Batch, clock: Clock) -> dict[str, Tensor]:
    return {"loss": module(batch["view1"], batch["view2"], clock.progress, clock.micro == 0)}


OBJECTIVE = Objective(
    name="mocov3",
    title="MoCo v3 (Chen et al., 2021)",
    kind="contrastive",
    labelled=False,
    config=Options,
    views=_views,
    build=MoCo,
    step=_step,
    decay_biases=True,
)
