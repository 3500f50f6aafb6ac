"""MAE: encode a quarter of the patches, decode all of them (He et al., CVPR 2022).

The encoder sees the visible patches alone; a small transformer takes its output and one token
for every hidden patch, and predicts pixels. The loss is the mean squared error of hidden
patches, on pixels normalised patch by patch (`norm_pix`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

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
    """Options of MAE; the defaults are the official ones."""

    mask_ratio: float = option(0.75, "Share of patches to hide.", low=0)
    norm_pix: bool = option(True, "Normalise the pixels of every target patch.")
    decoder_dim: int = option(512, "Width of the decoder.", low=4)
    decoder_depth: int = option(8, "Blocks of the decoder.", low=1)
    decoder_heads: int = option(16, "Attention heads of every decoder block.", low=1)
    crop_min: float = option(0.2, "Least share of an image's area in a crop.", low=0)
    flip: float = option(0.5, "Chance of a horizontal flip.", low=0, high=1)


class MAE(nn.Module):
    """A ViT that sees some patches, and a decoder that predicts the others.

    Args:
        encoder: timm VisionTransformer without a head.
        options: Options of the objective.
        framing: Input and patch size of the backbone.

    Raises:
        AttnprobeError: The backbone cannot take a subset of its tokens, or the decoder's width
            does not divide.
    """

    encoder: Any

    def __init__(self, encoder: nn.Module, options: Options, framing: Framing) -> None:
        super().__init__()
        vit = _subsettable(encoder)
        self.layout = backbone.examine(encoder, framing.size)
        self.patch, self.norm_pix = framing.patch, options.norm_pix
        grid = (self.layout.rows, self.layout.cols)
        _check_tiled(framing, grid)
        self.kept = visible(grid[0] * grid[1], options.mask_ratio)
        initial.mae_encoder(encoder)
        initial.fix_positions(encoder, grid, column_first=True)
        self.encoder = encoder
        self._add_decoder(options, grid)
        self._selection = masking.Selection(self.layout.prefix)
        vit.patch_drop.register_forward_hook(self._selection)

    def _add_decoder(self, options: Options, grid: tuple[int, int]) -> None:
        width, heads = options.decoder_dim, options.decoder_heads
        if width % heads:
            raise AttnprobeError(
                f"decoder_dim {width} does not divide by decoder_heads {heads}",
                "choose decoder_heads among the divisors of decoder_dim",
            )
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.decoder_embed = nn.Linear(self.layout.channels, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        table = initial.sincos(width, grid, column_first=True)
        table = torch.cat((table.new_zeros(self.layout.prefix, width), table))
        self.decoder_pos_embed = nn.Parameter(table.unsqueeze(0), requires_grad=False)
        blocks = [
            Block(width, heads, qkv_bias=True, norm_layer=norm)
            for _ in range(options.decoder_depth)
        ]
        self.decoder_blocks = nn.ModuleList(blocks)
        self.decoder_norm = norm(width)
        self.decoder_pred = nn.Linear(width, self.patch[0] * self.patch[1] * 3)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            initial.xavier(part)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            images: Normalised images, float [batch, 3, height, width].
            noise: [batch, patches]; patches of least noise stay visible.
        """
        made, hidden = self.predict(images, noise)
        target = patchify(images, self.patch)
        if self.norm_pix:
            target = (target - target.mean(-1, keepdim=True)) / _deviation(target)
        missed = (made.to(images.dtype) - target).square().mean(-1)
        shown = hidden.to(images.dtype)
        return (missed * shown).sum() / shown.sum()

    def predict(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted pixels, [batch, patches, values], and bool [batch, patches]: hidden."""
        kept, restore, hidden = masking.shuffle(noise, self.kept)
        self._selection.kept = kept
        with suited(self, images):
            try:
                latent = self.encoder.forward_features(images)
            finally:
                self._selection.kept = None
            return self._decode(latent, restore), hidden

    def _decode(self, latent: Tensor, restore: Tensor) -> Tensor:
        x, prefix = self.decoder_embed(latent), self.layout.prefix
        hidden = self.mask_token.expand(len(x), restore.shape[1] - self.kept, -1)
        patches = torch.cat((x[:, prefix:], hidden), 1)
        index = restore.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        x = torch.cat((x[:, :prefix], patches.gather(1, index)), 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, prefix:]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside biases and norms."""
        return backbone.undecayed(self)


def _subsettable(encoder: nn.Module) -> VisionTransformer:
    """Return the backbone if its tokens can be encoded without their neighbours."""
    if not isinstance(encoder, VisionTransformer):
        raise AttnprobeError(
            f"MAE encodes a subset of tokens, which {type(encoder).__name__} cannot: windows and "
            "relative positions need the whole grid",
            "take a plain ViT (such as vit_base_patch16_224), or train this backbone with SimMIM",
        )
    if not isinstance(encoder.patch_drop, nn.Identity):
        raise AttnprobeError(
            "the backbone drops patches itself (patch_drop_rate), before MAE can",
            "build it with patch_drop_rate=0",
        )
    return encoder


def _check_tiled(framing: Framing, grid: tuple[int, int]) -> None:
    """Refuse an input whose border belongs to no patch."""
    tiled = (grid[0] * framing.patch[0], grid[1] * framing.patch[1])
    if tiled != framing.size:
        raise AttnprobeError(
            f"patches of {framing.patch[0]} x {framing.patch[1]} do not tile an input of "
            f"{framing.size[0]} x {framing.size[1]} pixels",
            f"set img_size to {tiled[0]}, or another multiple of the patches",
        )


def visible(patches: int, mask_ratio: float) -> int:
    """Return how many patches stay visible, rounded down as in the official code.

    Raises:
        AttnprobeError: All or none of them.

    >>> visible(196, 0.75)
    49
    """
    kept = int(patches * (1 - mask_ratio))
    if not 0 < kept < patches:
        raise AttnprobeError(
            f"mask_ratio {mask_ratio} leaves {kept} of {patches} patches visible",
            "set mask_ratio so that some patches are visible and some are hidden",
        )
    return kept


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cut images into patches, [batch, patches, height * width * channels], channels last."""
    down, across = patch
    x = images.unflatten(3, (-1, across)).unflatten(2, (-1, down))  # b c rows down cols across
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(x: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """Put patches together again, [batch, 3, height, width]."""
    x = x.unflatten(2, (*patch, 3)).unflatten(1, grid)  # b rows cols down across c
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def _deviation(patches: Tensor) -> Tensor:
    return (patches.var(-1, keepdim=True) + 1e-6) ** 0.5


def _views(options: Options, framing: Framing) -> "partial[dict[str, Tensor]]":
    count = (framing.size[0] // framing.patch[0]) * (framing.size[1] // framing.patch[1])
    visible(count, options.mask_ratio)
    crop = views.crop(framing, options.crop_min, interpolation="bicubic")
    return partial(_view, views.compose(framing, (crop, views.flip(options.flip))), count)


def _view(view: views.View, count: int, image: Image.Image) -> dict[str, Tensor]:
    return {"image": view(image), "noise": torch.rand(count)}


def _step(module: nn.Module, batch: Batch, clock: Clock) -> dict[str, Tensor]:
    del clock
    return {"loss": module(batch["image"], batch["noise"])}


def _pictures(module: Any, batch: Batch, options: Options, framing: Framing) -> Tensor:
    """Draw panels; normalised pixels are scaled back by the true patch's mean and deviation."""
    images = batch["image"]
    made, hidden = module.predict(images, batch["noise"])
    made = made.to(images.dtype)
    if options.norm_pix:
        target = patchify(images, framing.patch)
        made = made * _deviation(target) + target.mean(-1, keepdim=True)
    grid = (framing.size[0] // framing.patch[0], framing.size[1] // framing.patch[1])
    pixels = masking.hidden_pixels(hidden.unflatten(1, grid), framing.size)
    return pictures.panels(images, unpatchify(made, grid, framing.patch), pixels, framing)


OBJECTIVE = Objective(
    name="mae",
    title="MAE (He et al., 2022)",
    kind="mim",
    labelled=False,
    config=Options,
    views=_views,
    build=MAE,
    step=_step,
    pictures=_pictures,
)
