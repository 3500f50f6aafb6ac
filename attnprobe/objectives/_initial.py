"""Initial values and fixed positions, as the published codes draw them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.errors import AttnprobeError

_LONGEST_PERIOD = 10_000.0


def sincos(width: int, grid: tuple[int, int], *, column_first: bool) -> Tensor:
    """Return fixed sine-cosine positions, float32 [rows * cols, width], in row-major order.

    A quarter of the channels each holds sine and cosine of one coordinate, then of the other.

    Args:
        width: Channels, divisible by four.
        grid: Rows and columns of patches.
        column_first: Whether the first half tells the column (MAE) or the row (MoCo v3).

    Raises:
        AttnprobeError: The width does not divide by four.
    """
    if width % 4:
        raise AttnprobeError(
            f"sine-cosine positions need a width that divides by 4; this backbone has {width}",
            "choose another width",
        )
    rows, cols = (torch.arange(count, dtype=torch.float64) for count in grid)
    row, col = torch.meshgrid(rows, cols, indexing="ij")
    quarter = width // 4
    rates = _LONGEST_PERIOD ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    order = (col, row) if column_first else (row, col)
    angles = [place.reshape(-1, 1) * rates for place in order]
    return torch.cat(
        [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1
    ).float()


def fix_positions(encoder: Any, grid: tuple[int, int], *, column_first: bool) -> None:
    """Give a ViT fixed sine-cosine positions; prefix tokens get zeros.

    Raises:
        AttnprobeError: The backbone has no absolute positions.
    """
    place = encoder.pos_embed
    if place is None:
        raise AttnprobeError(
            f"{type(encoder).__name__} was built without absolute positions (pos_embed)",
            "build it with pos_embed='learn'; its values are replaced by fixed ones",
        )
    table = sincos(place.shape[-1], grid, column_first=column_first)
    with torch.no_grad():
        place.zero_()
        place[0, place.shape[1] - len(table) :] = table.to(place)
    place.requires_grad_(requires_grad=False)


def _cut_normal(weight: Tensor) -> None:
    """Normal values of deviation 0.02, cut at one deviation (SimMIM's ViT)."""
    nn.init.trunc_normal_(weight, std=0.02, a=-0.02, b=0.02)


def simmim_vit(encoder: nn.Module) -> None:
    """Initialise a plain transformer as SimMIM does (after BEiT).

    Outputs of block n (from 1) are divided by the square root of 2n.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            _cut_normal(module.weight)
            _zero(module.bias)
        elif isinstance(module, nn.LayerNorm):
            _plain_norm(module)
    for token in tokens(encoder, "cls_token", "reg_token", "dist_token", "pos_embed"):
        _cut_normal(token)
    blocks: Any = getattr(encoder, "blocks", ())
    with torch.no_grad():
        for number, block in enumerate(blocks, start=1):
            for last in (block.attn.proj, getattr(block.mlp, "fc2", None)):
                if last is not None:
                    last.weight.div_(math.sqrt(2 * number))


def mask_token(width: int, *, cut: bool) -> nn.Parameter:
    """Return SimMIM's token [1, 1, width], cut at one deviation (ViT) or not (Swin)."""
    token = nn.Parameter(torch.zeros(1, 1, width))
    if cut:
        _cut_normal(token)
    else:
        nn.init.trunc_normal_(token, std=0.02)
    return token


def xavier(module: nn.Module) -> None:
    """Initialise linear layers and norms of a module as MAE does."""
    for item in module.modules():
        if isinstance(item, nn.Linear):
            nn.init.xavier_uniform_(item.weight)
            _zero(item.bias)
        elif isinstance(item, nn.LayerNorm):
            _plain_norm(item)


def mae_encoder(encoder: Any) -> None:
    """Initialise a ViT as MAE does: Xavier, patches like a linear layer, tokens normal 0.02."""
    xavier(encoder)
    nn.init.xavier_uniform_(encoder.patch_embed.proj.weight.flatten(1))
    for token in tokens(encoder, "cls_token", "reg_token", "dist_token"):
        nn.init.normal_(token, std=0.02)


def moco_encoder(encoder: Any) -> None:
    """Initialise a ViT as MoCo v3 does: Xavier for Q, K and V each, tokens close to zero."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            _zero(module.bias)
            if name.endswith("qkv"):
                _uniform(module.weight, module.out_features // 3 + module.in_features)
    for token in tokens(encoder, "cls_token", "reg_token", "dist_token"):
        nn.init.normal_(token, std=1e-6)
    patches = encoder.patch_embed.proj
    _uniform(patches.weight, patches.weight[0].numel() + patches.out_channels)
    _zero(patches.bias)


def tokens(encoder: nn.Module, *names: str) -> list[nn.Parameter]:
    """Return those parameters of the given names that a backbone has."""
    found = (getattr(encoder, name, None) for name in names)
    return [item for item in found if isinstance(item, nn.Parameter)]


def _uniform(weight: Tensor, fans: int) -> None:
    bound = math.sqrt(6 / fans)
    nn.init.uniform_(weight, -bound, bound)


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        nn.init.zeros_(bias)


def _plain_norm(norm: nn.LayerNorm) -> None:
    if norm.elementwise_affine:
        nn.init.ones_(norm.weight)
        _zero(norm.bias)
