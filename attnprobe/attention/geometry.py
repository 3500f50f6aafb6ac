"""Token geometry of a layer from the model and the image it was given."""

import math
import re
from collections.abc import Callable
from typing import Any

from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn

from attnprobe.attention.families import variant_of
from attnprobe.attention.given import Given, given_grid
from attnprobe.attention.layers import Site
from attnprobe.attention.placing import around, ordinary, stating, unknown
from attnprobe.attention.reader import RawAttention
from attnprobe.attention.variant import At
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid

_STAGE = re.compile(r"(?:^|\.)(?:layers|stages|blocks)[._](\d+)\.(?:blocks|layers)\.\d")
_FEATURES = re.compile(r"(?:^|\.)features\.(\d+)\.\d+\.attn")  # stages and mergings in turn
_SWIN_BLOCKS = (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)


def stage_of(name: str) -> int:
    """Return the stage in a module name such as `layers.2.blocks.0.attn`, or 0.

    >>> stage_of("layers.2.blocks.0.attn"), stage_of("blocks.7.attn")
    (2, 0)
    >>> stage_of("features.3.1.attn"), stage_of("blocks.1.layers.0.layers.window.attn")
    (1, 1)
    >>> stage_of("encoder.layers.2.blocks.0.attention"), stage_of("encoder.layers.2.attention")
    (2, 0)
    >>> stage_of("layers_2.blocks.0.attn")  # of timm's features_only
    2
    """
    staged = re.match(r"(?:layers|stages)[._](\d+)\.", name) or _STAGE.search(name)
    listed = _FEATURES.search(name)
    if staged is None and listed is not None:
        return int(listed[1]) // 2
    return int(staged[1]) if staged else 0


def grid_of(
    model: nn.Module,
    site: Site,
    raw: RawAttention,
    image: tuple[int, int, int],
    given: Given | None = None,
) -> TokenGrid | None:
    """Return the token grid of one layer and check it against the tokens that came.

    Args:
        model: The whole model.
        site: The attention module.
        raw: What it attended with.
        image: Images of the batch, and their height and width in pixels.
        given: What the user states instead of what is known.

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
    if given is not None:
        return given_grid(given, at)
    place = _place_of(at)
    if place is not None:
        return place(at)
    inner, _ = stating(model, name)
    if isinstance(site.block, _SWIN_BLOCKS):
        grid = _window_grid(at, site.block)
    elif at.windows == 1 and at.queries == tokens and _embeds_once(inner):
        grid = _plain_grid(inner, name, size)
    else:
        return ordinary(at)
    if grid.tokens != tokens:
        raise GeometryError(
            f"{name} attends over {tokens} tokens, but a {grid.extent[0]} x {grid.extent[1]} grid "
            f"with {grid.prefix} prefix tokens has {grid.tokens}",
            "use the input size the checkpoint expects and switch token dropping off",
        )
    return grid


def _place_of(at: At) -> Callable[[At], TokenGrid | None] | None:
    """Return what places the tokens of a module of its class, or in a block of its class."""
    modules = (at.module, *(part for _, part in around(at)))
    known = (variant_of(module) for module in modules)
    return next((variant.place for variant in known if variant and variant.place), None)


def _embeds_once(model: nn.Module) -> bool:
    """Whether one convolution makes the tokens of all layers."""
    embed = getattr(model, "patch_embed", None)
    flat = len({stage.get("reduction") for stage in getattr(model, "feature_info", ())}) <= 1
    convolved = isinstance(getattr(embed, "proj", None), nn.Conv2d) and not hasattr(
        embed, "backbone"
    )
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


def _window_grid(at: At, block: Any) -> TokenGrid:
    """Place timm's Swin windows; it shifts the image first and then pads it for them to tile."""
    model, name = stating(at.model, at.name)
    stages, stage = getattr(model, "feature_info", ()), stage_of(name)
    if stage >= len(stages):
        raise unknown(at, f"{at.keys} tokens of a stage that states no stride,")
    reduction = stages[stage]["reduction"]
    rows, cols = (math.ceil(side / reduction) for side in at.image)
    window = tuple(block.window_size)
    grid = TokenGrid(
        rows,
        cols,
        (float(reduction), float(reduction)),
        window=window,
        shift=tuple(block.shift_size),
        padding=(-rows % window[0], -cols % window[1]),
        late=True,
    )
    if math.prod(grid.windows) != at.windows:
        raise GeometryError(
            f"{at.name} attends in {at.windows} windows, but a {rows} x {cols} grid has "
            f"{grid.windows[0]} x {grid.windows[1]} of {window[0]} x {window[1]}",
            "use the input size that the model expects",
        )
    return grid


def tokens_of(x: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Return a block's output as [images, tokens, channels].

    Of four axes, the two that are shaped as the image are rows and columns.
    """
    images, height, width = image
    if x.ndim == 4 and height * x.shape[3] == width * x.shape[2] and x.shape[1] != x.shape[2]:
        x = x.permute(0, 2, 3, 1)
    return x.reshape(images, -1, x.shape[-1])
