"""Hiera (Ryali et al. 2023), also of transformers and SAM 2: mask units, pooled queries.

Hiera keeps its tokens in an order of its own: what the next pooling takes together lies farthest
apart, so that every pooling is a maximum over the first axis. SAM 2 keeps reading order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.attention.calls import CALLS
from attnprobe.attention.placing import unknown
from attnprobe.attention.reader import Call, RawAttention, kind_of
from attnprobe.attention.strides import convolved, counted, holds, owner, pixels, stage_in, tiled
from attnprobe.attention.variant import At, Variant
from attnprobe.attention.weighted import from_logits
from attnprobe.errors import CaptureError
from attnprobe.types import TokenGrid

Sides = tuple[int, int]
_OWNERS = ("hiera.Hiera", "modeling_hiera.HieraModel", "modeling_hiera.HieraBackbone")


def _arranged(module: nn.Module, raw: RawAttention) -> RawAttention:
    """Bring [images, heads, windows, tokens, dim] to images x windows."""
    del module
    q, k = (x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x for x in (raw.q, raw.k))
    return raw._replace(q=q, k=k)


def _joined(module: nn.Module, calls: Sequence[Call]) -> RawAttention:
    """Read the softmax of transformers' own over [images, heads, windows, queries, keys]."""
    if len(calls) > 1 or calls[0].args[0].ndim != 5:
        raise CaptureError(
            f"{type(module).__name__} attends in a way of its own",
            "measure the same weights in timm: the file itself, rather than the object",
        )
    return from_logits(calls[0].args[0].transpose(1, 2).flatten(0, 1))


def _rolled(model: Any, module: Any) -> tuple[tuple[Any, Sides], tuple[Any, Sides]]:
    """Return how queries and keys are unrolled: the strides that are left, and their sides."""
    if kind_of(model) in _OWNERS[1:]:
        schedule = model.encoder.schedule
        index = stage_in(model.encoder.stages, module)
        pools = module.query_stride > 1
    else:
        schedule = model.reroll.schedule
        index = stage_in(model.blocks, module)
        pools = module.q_stride > 1
    return schedule[index], schedule[index - 1 if pools else index]


def _ordered(model: nn.Module, module: Any, raw: RawAttention) -> RawAttention:
    """Undo the unrolling of the tokens of one window, or of the whole map."""
    hiera = next(x for x in model.modules() if kind_of(x) in _OWNERS and holds(x, module))
    queries, keys = (
        _order(*rolled, module.use_mask_unit_attn).to(raw.q.device)
        for rolled in _rolled(hiera, module)
    )
    if (len(queries), len(keys)) != (raw.q.shape[2], raw.k.shape[2]):
        raise CaptureError(
            f"{raw.k.shape[2]} keys came to a {type(module).__name__} that orders {len(keys)}",
            "give the model whole images of the size that it expects",
        )
    bias = None if raw.bias is None else raw.bias[..., queries, :][..., keys]
    return raw._replace(q=raw.q[:, :, queries], k=raw.k[:, :, keys], bias=bias)


def _order(strides: Iterable[Sides], sides: Sides, inside: bool) -> Tensor:
    """Return the order that undoes the unrolling of a map, or of the first window of it.

    >>> _order([(2, 2)], (2, 4), False).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    places = torch.arange(math.prod(sides)).view(1, *sides)
    for high, wide in strides:
        parted = places.unflatten(2, (-1, wide)).unflatten(1, (-1, high))
        places = parted.permute(0, 2, 4, 1, 3).flatten(0, 2)
    tokens = places[:, 0, 0] if inside else places.flatten()
    return tokens.argsort()


def _units(at: At) -> TokenGrid:
    """Place the tokens once they are in reading order."""
    model: Any = owner(at, *_OWNERS)
    embedding = getattr(model, "patch_embed", None) or model.embeddings.patch_embeddings
    projection = getattr(embedding, "proj", None) or embedding.projection
    if not isinstance(projection, nn.Conv2d):
        raise unknown(at, f"{at.keys} keys of a {type(projection).__name__}")
    patches = convolved(pixels(at), projection)
    stated = getattr(model, "tokens_spatial_shape", None) or embedding.tokens_spatial_shape
    if list(patches.extent) != list(stated):
        raise unknown(at, f"{at.keys} keys in {at.windows} windows")
    queries, keys = (
        _unit_grid(rolled, patches, at.module.use_mask_unit_attn)
        for rolled in _rolled(model, at.module)
    )
    return counted(at, replace(queries, keys=None if keys == queries else keys))


def _unit_grid(rolled: tuple[Any, Sides], patches: TokenGrid, inside: bool) -> TokenGrid:
    """Return the grid of a map of pooled patches that is unrolled so."""
    strides, (rows, cols) = rolled
    unit = (math.prod(y for y, _ in strides), math.prod(x for _, x in strides))
    step = (patches.rows // rows, patches.cols // cols)
    pool = nn.MaxPool2d(step, step)
    return replace(convolved(patches, pool), window=unit if inside else None)


def _windows(at: At) -> TokenGrid:
    """Place SAM 2's windows as timm has them."""
    model = owner(at, "hieradet_sam2.HieraDet")
    window = at.parent.window_size if at.parent.is_windowed else None
    steps = [(block.attn, block.q_stride) for block in model.blocks]
    return _followed(at, model.patch_embed.proj, steps, window)


def _hugging(at: At) -> TokenGrid:
    """Place SAM 2's windows as transformers has them."""
    model = owner(at, "modeling_sam2.Sam2HieraDetModel")
    side = at.parent.window_size
    steps = [(block.attn, block.query_stride) for block in model.blocks]
    return _followed(at, model.patch_embed.projection, steps, (side, side) if side else None)


def _followed(
    at: At, convolution: Any, steps: Sequence[tuple[Any, Sides | None]], window: Sides | None
) -> TokenGrid:
    """Follow the poolings of all queries before, then place the windows of the layer's own.

    Args:
        at: The layer.
        convolution: What makes the first tokens.
        steps: Each layer's module with the stride at which it pools its queries, in order.
        window: Keys of one window of this layer, or None for global attention.
    """
    grid = queries = convolved(pixels(at), convolution)
    step = (1, 1)
    for module, stride in steps:
        step = stride or (1, 1)
        queries = convolved(grid, nn.MaxPool2d(step, step)) if stride else grid
        if module is at.module:
            break
        grid = queries
    if window is not None:
        grid = tiled(at, grid, window)
        queries = tiled(at, queries, (window[0] // step[0], window[1] // step[1]))
    if queries != grid and not (queries.whole and grid.whole):
        raise unknown(at, f"padded windows of {at.keys} keys with pooled queries")
    return counted(at, replace(queries, keys=None if grid == queries else grid))


def _last(module: Any, calls: Sequence[Call]) -> RawAttention:
    """Read the last of two; transformers leaves a softmax over heads before it unused."""
    unused = calls[0].args[0].shape[2:] if len(calls) == 2 else ()
    if len(calls) > 1 and tuple(unused) != (module.num_attention_heads,) * 2:
        raise CaptureError(
            f"{type(module).__name__} attends in a way of its own",
            "measure the same weights in timm, as sam2_hiera_tiny and its like",
        )
    return CALLS.read(module, calls[-1], ((), {}))


VARIANTS = (
    Variant("hiera.MaskUnitAttention", place=_units, arrange=_arranged, order=_ordered),
    Variant("modeling_hiera.HieraMaskUnitAttention", place=_units, join=_joined, order=_ordered),
    Variant("hieradet_sam2.MultiScaleAttention", place=_windows),
    Variant("modeling_sam2.Sam2MultiScaleAttention", place=_hugging, join=_last),
)
