"""Token geometry of a layer from the model and the image it was given."""

import math
from typing import Any

from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn

from attnprobe.attention.families import variant_of
from attnprobe.attention.layers import Site
from attnprobe.attention.placing import ordinary
from attnprobe.attention.reader import RawAttention
from attnprobe.attention.variant import At
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid

_SWIN_BLOCKS = (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)


def stage_of(name: str) -> int:
    """Return the stage in a module name such as `layers.2.blocks.0.attn`, or 0.

    >>> stage_of("layers.2.blocks.0.attn"), stage_of("blocks.7.attn")
    (2, 0)
    """
    parts = name.split(".")
    staged = len(parts) > 1 and parts[0] in ("layers", "stages") and parts[1].isdigit()
    return int(parts[1]) if staged else 0


def grid_of(
    model: nn.Module, site: Site, raw: RawAttention, image: tuple[int, int, int]
) -> TokenGrid | None:
    """Return the token grid of one layer and check it against the tokens that came.

    Args:
        model: The whole model.
        site: The attention module.
        raw: What it attended with.
        image: Images of the batch, and their height and width in pixels.

    Returns:
        None where its tokens have no place on the image.

    Raises:
        GeometryError: The grid does not explain the number of tokens.
    """
    name, size, tokens = site.name, image[1:], raw.k.shape[2]
    at = At(
        name=name,
        model=model,
        module=site.module,
        parent=model.get_submodule(name.rpartition(".")[0]),
        image=size,
        windows=raw.q.shape[0] // image[0],
        queries=raw.q.shape[2],
        keys=tokens,
    )
    variant = variant_of(site.module)
    if variant is not None and variant.place is not None:
        return variant.place(at)
    if isinstance(site.block, _SWIN_BLOCKS):
        grid = _window_grid(model, name, site.block, size)
    elif at.windows == 1 and at.queries == tokens and _embeds_once(model):
        grid = _plain_grid(model, name, size)
    else:
        return ordinary(at)
    if grid.tokens != tokens:
        raise GeometryError(
            f"{name} attends over {tokens} tokens, but a {grid.extent[0]} x {grid.extent[1]} grid "
            f"with {grid.prefix} prefix tokens has {grid.tokens}",
            "use the input size the checkpoint expects and switch token dropping off",
        )
    return grid


def _embeds_once(model: nn.Module) -> bool:
    """Whether one convolution makes the tokens of all layers."""
    embed = getattr(model, "patch_embed", None)
    flat = len({stage.get("reduction") for stage in getattr(model, "feature_info", ())}) <= 1
    convolved = isinstance(getattr(embed, "proj", None), nn.Conv2d)
    return flat and convolved and hasattr(model, "num_prefix_tokens")


def _plain_grid(model: nn.Module, name: str, image: tuple[int, int]) -> TokenGrid:
    embed = getattr(model, "patch_embed", None)
    projection = getattr(embed, "proj", None)
    if not isinstance(projection, nn.Conv2d):
        raise GeometryError(
            f"cannot place the tokens of {name}: {type(model).__name__} has no convolutional "
            "patch embedding",
            "add its geometry in attnprobe/attention/geometry.py",
        )
    step: tuple[int, int] = (int(projection.stride[0]), int(projection.stride[1]))
    kernel = projection.kernel_size
    count = math.ceil if getattr(embed, "dynamic_img_pad", False) else math.floor
    rows, cols = (
        count((side - size) / stride) + 1
        for side, size, stride in zip(image, kernel, step, strict=True)
    )
    prefix = _prefix(model)
    patch = (float(step[0]), float(step[1]))
    return TokenGrid(rows, cols, patch, prefix=prefix, names=_prefix_names(model, prefix))


def _prefix(model: nn.Module) -> int:
    prefix = getattr(model, "num_prefix_tokens", None)
    if not isinstance(prefix, int):
        raise GeometryError(
            f"{type(model).__name__} does not say how many prefix tokens it has",
            "set num_prefix_tokens on the module",
        )
    return prefix


def _prefix_names(model: Any, prefix: int) -> tuple[str, ...]:
    """Return what the prefix tokens are, in timm's order, or nothing where they do not add up."""
    names = [name for name in ("cls", "dist") if getattr(model, f"{name}_token", None) is not None]
    registers = getattr(model, "reg_token", None)
    if registers is not None:
        names += [f"register{index + 1}" for index in range(registers.shape[1])]
    return tuple(names) if len(names) == prefix else ()


def _window_grid(model: Any, name: str, block: Any, image: tuple[int, int]) -> TokenGrid:
    reduction = model.feature_info[stage_of(name)]["reduction"]
    rows, cols = block.input_resolution
    window = tuple(block.window_size)
    if rows % window[0] or cols % window[1] or (rows * reduction, cols * reduction) != image:
        raise GeometryError(
            f"{name}: windows of {window[0]} x {window[1]} do not tile the grid of a "
            f"{image[0]} x {image[1]} image at stride {reduction} ({rows} x {cols} tokens), and "
            "padded tokens would be counted as image",
            f"use an input size that {reduction * window[0]} divides",
        )
    return TokenGrid(
        rows,
        cols,
        (float(reduction), float(reduction)),
        window=window,
        shift=tuple(block.shift_size),
    )


def tokens_of(x: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Return a block's output as [images, tokens, channels].

    Of four axes, the two that are shaped as the image are rows and columns.
    """
    images, height, width = image
    if x.ndim == 4 and height * x.shape[3] == width * x.shape[2] and x.shape[1] != x.shape[2]:
        x = x.permute(0, 2, 3, 1)
    return x.reshape(images, -1, x.shape[-1])
