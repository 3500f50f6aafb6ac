"""One layer as the fused kernel's programs take it: pointers, strides, sizes and blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.kernels._launching import interpreted
from attnprobe.tensors import AttentionInputs, every


@dataclass(frozen=True)
class Call:
    """One layer as both programs take it; `tensors`, `strides` and `sizes` in their order."""

    tensors: tuple[Tensor, ...]  # queries, keys, mean keys, bias
    strides: tuple[int, ...]  # of queries, keys and bias, and how many batches the bias has
    sizes: tuple[float, ...]  # heads ... scale, first query, step
    images: int
    batch: int
    heads: int
    queries: int  # patch queries that count
    prefix: int
    tile: dict[str, int]
    options: dict[str, bool]

    @property
    def blocks(self) -> int:
        """Blocks of queries of one head."""
        return -(-self.queries // self.tile["BLOCK_M"])

    def empty(self, *shape: int) -> Tensor:
        """Return fp32 memory on the layer's device."""
        return torch.empty(shape, dtype=torch.float32, device=self.tensors[0].device)


def prepare(inputs: AttentionInputs, prefix: str) -> Call:
    """Return one layer as programs take it, its blocks those of heads taken by pairs."""
    q, k, bias = inputs.q.detach(), inputs.k.detach(), inputs.bias
    (batch, heads, queries, dim), (_, kv_heads, keys, _) = q.shape, k.shape
    lead = inputs.grid.prefix
    first = lead if prefix == "renormalised" else 0
    wide = q.dtype != k.dtype or q.dtype == torch.float32
    if interpreted() and q.dtype == torch.bfloat16:
        wide = True  # the interpreter multiplies the bits of bf16 values
    mean = k[:, :, first:].mean(2, dtype=torch.float32) if wide else q
    strides, period = (0, 0, 0, 0), 1
    if bias is not None:
        sides = zip(bias.stride(), bias.shape, strict=True)
        strides = tuple(0 if size == 1 else stride for stride, size in sides)
        period = len(bias)
    chosen = every(inputs.step, queries - lead)
    count = len(range(queries - lead)[chosen])
    sizes = (heads, heads // kv_heads, count, keys - first, dim, lead, first)
    return Call(
        tensors=(q, k, mean, q if bias is None else bias.detach()),  # an unused pointer may be any
        strides=(*q.stride(), *k.stride(), *strides, period),
        sizes=(*sizes, float(inputs.scale), chosen.start, chosen.step),
        images=inputs.images,
        batch=batch,
        heads=heads,
        queries=count,
        prefix=lead,
        tile=block_sizes(count, dim, wide=wide, biased=bias is not None),
        options={"WIDE": wide, "BIASED": bias is not None},
    )


def per_image(x: Tensor, images: int) -> Tensor:
    """Return means over the windows of an image, fp32, from [images x windows, ...]."""
    return x.unflatten(0, (images, -1)).mean(1).float()


def power(size: int, least: int = 16) -> int:
    """Return the power of two that holds `size`, and no less than a product takes.

    >>> power(3), power(64), power(80), power(3, least=4)
    (16, 64, 128, 4)
    """
    return max(least, 1 << (size - 1).bit_length()) if size else least


def block_sizes(queries: int, dim: int, *, wide: bool, biased: bool) -> dict[str, int]:
    """Return block sizes and launch options of both programs.

    The largest that registers hold (fp32 spills tens of bytes on compute capability 8) and
    that fit the 99 KiB of shared memory a block has on the smallest cards.
    """
    block_d = min(32, power(dim)) if wide else power(dim)
    return {
        "BLOCK_M": min(64, power(queries)),
        "BLOCK_N": 32 if wide or biased else 64,
        "BLOCK_D": block_d,
        "CHANNELS": -(-dim // block_d) * block_d,
        "num_warps": 4,
        "num_stages": 2,
    }
