"""SimMIM: predict the raw pixels of hidden patches (Xie et al., CVPR 2022).

Hidden patches are replaced by one token before the first block; a linear layer (a 1 x 1
convolution and a pixel shuffle) predicts every pixel from the encoder's output; the loss is
the mean absolute error of hidden pixels. Swin V2 was trained on targets normalised in a
sliding window (`norm_target`, official code).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Batch, Clock, Framing, Objective
from attnprobe.objectives import _backbone as backbone
from attnprobe.objectives import _initial as initial
from attnprobe.objectives import _masking as masking
from attnprobe.objectives import _pictures as pictures
from attnprobe.objectives import _views as views
from attnprobe.objectives._attention import suited
from attnprobe.options import option


@dataclass(frozen=True)
class Options:
    """Options of SimMIM; the defaults are the official ViT's and Swin's."""

    mask_patch: int = option(
        32, "Side of the squares that are hidden as a whole, in pixels.", low=1
    )
    mask_ratio: float = option(0.6, "Share of squares to hide; their count is rounded up.", low=0)
    crop_min: float = option(0.67, "Least share of an image's area in a crop.", low=0)
    crop_max: float = option(1.0, "Largest share of an image's area in a crop.", low=0)
    flip: float = option(0.5, "Chance of a horizontal flip.", low=0, high=1)
    norm_target: int = option(
        0, "Side in pixels of the window that targets are normalised in, odd; 0: not at all.", low=0
    )


class SimMIM(nn.Module):
    """A backbone that predicts the pixels of hidden patches.

    Args:
        encoder: timm backbone without a head.
        options: Options of the objective.
        framing: Input and patch size of the backbone.

    Raises:
        AttnprobeError: Patches cannot be hidden from the backbone, its grid is not that of
            square pixels, or the window of targets is even.
    """

    encoder: Any

    def __init__(self, encoder: nn.Module, options: Options, framing: Framing) -> None:
        super().__init__()
        self.layout = backbone.examine(encoder, framing.size)
        self.window = _window(options.norm_target)
        plain = hasattr(encoder, "blocks")
        if plain:
            initial.simmim_vit(encoder)
        self.encoder = encoder
        self.mask_token = initial.mask_token(self.layout.width, cut=plain)
        stride = _stride(framing.size, self.layout)
        self.decoder = nn.Sequential(
            nn.Conv2d(self.layout.channels, stride**2 * 3, kernel_size=1),
            nn.PixelShuffle(stride),
        )
        self._cover = masking.Cover()
        patches, _ = backbone.embedding(encoder)
        patches.register_forward_hook(self._cover)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the loss (equation of section 3.4), a scalar.

        Args:
            images: Normalised images, float [batch, 3, height, width].
            mask: Which patches are hidden, bool [batch, patch rows, patch cols].
        """
        made = self.reconstruct(images, mask).to(images.dtype)
        hidden = masking.hidden_pixels(mask, (images.shape[2], images.shape[3])).to(images.dtype)
        targets = windowed(images, self.window)[0] if self.window else images
        missed = F.l1_loss(made, targets, reduction="none")
        return (missed * hidden).sum() / (hidden.sum() + 1e-5) / images.shape[1]

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the prediction of every pixel, [batch, 3, height, width], as the loss sees it."""
        self._cover.hidden, self._cover.token = mask.bool(), self.mask_token
        try:
            with suited(self, images):
                features = self.encoder.forward_features(images)
        finally:
            self._cover.hidden = self._cover.token = None
        return self.decoder(backbone.grid(features, self.layout))

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside biases and norms."""
        return backbone.undecayed(self)


def windowed(images: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise every pixel by mean and deviation of the window around it.

    Args:
        images: [batch, channels, height, width].
        side: Side of the window in pixels, odd; at borders only what exists counts.

    Returns:
        Normalised images, means and deviations, each of the images' shape.
    """
    pool = partial(F.avg_pool2d, kernel_size=side, stride=1, padding=side // 2)
    mean = pool(images, count_include_pad=False)
    square = pool(images**2, count_include_pad=False)
    count = pool(torch.ones_like(images), count_include_pad=True) * side**2
    variance = ((square - mean**2) * (count / (count - 1))).clamp(min=0)
    deviation = (variance + 1e-6) ** 0.5
    return (images - mean) / deviation, mean, deviation


def _window(side: int) -> int:
    if side and (side < 3 or side % 2 == 0):
        raise AttnprobeError(
            f"norm_target is {side}, but the window around a pixel has an odd side of 3 or more",
            "set norm_target to 0 (off) or an odd number of pixels such as 47",
        )
    return side


def _stride(size: tuple[int, int], layout: backbone.Layout) -> int:
    """Return the pixels that one position of the encoder's output stands for."""
    down, across = size[0] // layout.rows, size[1] // layout.cols
    if down != across or (layout.rows * down, layout.cols * across) != size:
        raise AttnprobeError(
            f"an output grid of {layout.rows} x {layout.cols} does not tile an input of "
            f"{size[0]} x {size[1]} pixels with squares",
            "take square patches and an input size that the encoder's stride divides",
        )
    return down


def _views(options: Options, framing: Framing) -> "partial[dict[str, Tensor]]":
    layout = masking.cells(framing, options.mask_patch, options.mask_ratio)
    parts = (views.crop(framing, options.crop_min, options.crop_max), views.flip(options.flip))
    return partial(_view, views.compose(framing, parts), layout)


def _view(view: views.View, layout: masking.Cells, image: Image.Image) -> dict[str, Tensor]:
    return {"image": view(image), "mask": masking.draw(layout)}


def _step(module: nn.Module, batch: Batch, clock: Clock) -> dict[str, Tensor]:
    del clock
    return {"loss": module(batch["image"], batch["mask"])}


def _pictures(module: Any, batch: Batch, options: Options, framing: Framing) -> Tensor:
    """Draw panels; normalised targets are scaled back by the true window's mean and deviation."""
    images, mask = batch["image"], batch["mask"]
    made = module.reconstruct(images, mask).to(images.dtype)
    if options.norm_target:
        _, mean, deviation = windowed(images, options.norm_target)
        made = made * deviation + mean
    hidden = masking.hidden_pixels(mask.bool(), framing.size)
    return pictures.panels(images, made, hidden, framing)


OBJECTIVE = Objective(
    name="simmim",
    title="SimMIM (Xie et al., 2022)",
    kind="mim",
    labelled=False,
    config=Options,
    views=_views,
    build=SimMIM,
    step=_step,
    pictures=_pictures,
)
