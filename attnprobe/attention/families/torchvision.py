"""ViT, Swin, Swin V2 and MaxViT of torchvision."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from attnprobe.attention.calls import CALLS
from attnprobe.attention.placing import around, embedded, unknown
from attnprobe.attention.reader import Call, RawAttention
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _plain(at: At) -> TokenGrid:
    tower: Any = next((part for _, part in around(at) if hasattr(part, "conv_proj")), None)
    if tower is None:
        raise unknown(at, f"{at.keys} tokens without an embedding of patches")
    return embedded(at, tower.conv_proj, ["cls"])


def _windows(at: At) -> TokenGrid:
    """Place the windows of `features`: an embedding, then stages and mergings in turn."""
    parts: list[Any] = [part for _, part in around(at)]
    features: Any = next((part.features for part in parts if hasattr(part, "features")), ())
    index = next((i for i, stage in enumerate(features) if any(stage is x for x in parts)), 0)
    window, shift = tuple(at.module.window_size), tuple(at.module.shift_size)
    if index % 2 == 0:
        raise unknown(at, f"{at.keys} tokens of an unknown stage")
    merged, step = 2 ** (index // 2), features[0][0].stride
    sides = zip(at.image, step, strict=True)
    rows, cols = (math.ceil(side // stride / merged) for side, stride in sides)
    grid = TokenGrid(
        rows,
        cols,
        (float(step[0] * merged), float(step[1] * merged)),
        window=(window[0], window[1]),
        shift=(shift[0] if window[0] < rows else 0, shift[1] if window[1] < cols else 0),
        padding=(-rows % window[0], -cols % window[1]),  # before the shift
    )
    if math.prod(grid.windows) != at.windows or at.keys != math.prod(window):
        raise unknown(at, f"windows of {window[0]} x {window[1]} that do not tile the image")
    return grid


def _joined(module: nn.Module, calls: Sequence[Call]) -> RawAttention:
    """Return a softmax over [images, windows, heads, queries, keys] with windows as images."""
    (call,) = calls
    logits = call.args[0].flatten(0, 1)
    return CALLS.read(module, call._replace(args=(logits, *call.args[1:])), ((), {}))


def _partition(at: At) -> TokenGrid:
    """Place solid windows of `p` tokens a side, or `g` tokens a side that lie `p` apart."""
    layer: Any = next(part for _, part in around(at) if hasattr(part, "partition_type"))
    rows, cols = layer.grid_size
    spread = layer.partition_type == "grid"
    window = (rows // layer.p, cols // layer.p) if spread else (layer.p, layer.p)
    count = (rows // window[0]) * (cols // window[1])
    if at.image[0] % rows or at.image[1] % cols or rows % layer.p or cols % layer.p:
        raise unknown(at, f"{rows} x {cols} tokens")
    if (at.windows, at.keys) != (count, window[0] * window[1]):
        raise unknown(at, f"{at.keys} keys in {at.windows} windows")
    return TokenGrid(
        rows,
        cols,
        (at.image[0] / rows, at.image[1] / cols),
        window=window,
        dilation=(layer.p, layer.p) if spread else (1, 1),
    )


VARIANTS = (
    Variant("vision_transformer.EncoderBlock", place=_plain),
    Variant("swin_transformer.ShiftedWindowAttention", place=_windows),
    Variant("swin_transformer.ShiftedWindowAttentionV2", place=_windows),
    Variant("maxvit.RelativePositionalMultiHeadAttention", place=_partition, join=_joined),
)
