"""Attention statistics on graphics cards: no logit ever leaves the registers.

Two Triton programs share one way to make a tile of logits. The first goes over the keys of a
head's block of queries with an online softmax and sums entropy, distance and prefix mass; the
second, with each row's log-sum-exp known, takes two heads together and sums the divergences
of either from the other. Memory is linear in the number of tokens, every sum is made in a
fixed order, and nothing waits for the device, so a call can be part of a CUDA graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.kernels._launching import (
    interpreted,
    launch,
    on_device,
    preferred,
    require,
    unsupported,
)
from attnprobe.tensors import AttentionInputs, AttentionStats
from attnprobe.types import TokenGrid

__all__ = ["attention_stats", "block_sizes", "interpreted", "preferred", "require", "unsupported"]


@dataclass(frozen=True)
class _Call:
    """One layer as both programs take it; `tensors`, `strides` and `sizes` in their order."""

    tensors: tuple[Tensor, ...]  # queries, keys, mean keys, bias
    strides: tuple[int, ...]  # of queries, keys and bias, and how many batches the bias has
    sizes: tuple[float, ...]  # heads ... scale
    images: int
    batch: int
    heads: int
    queries: int  # patch queries
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


def attention_stats(
    inputs: AttentionInputs, want: frozenset[str], *, prefix: str = "renormalised"
) -> AttentionStats:
    """Return per-image means over patch queries (and windows), fp32.

    Args:
        inputs: One layer of one batch.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: renormalised or included; other conventions live in `reference`.

    Raises:
        AttnprobeError: The device, a type or a size is beyond the kernel, or Triton failed.
    """
    require(inputs)
    if inputs.layer.grid is None:
        want = want - {"distance"}
    call = _prepare(inputs, prefix)
    stats, lse = AttentionStats(), call.empty(0)
    with on_device(inputs.q):
        if want:
            stats, lse = _rows(call, inputs.grid, want)
        if "kl" in want:
            stats = stats._replace(kl=_divergence(call, lse))
    return stats


def _prepare(inputs: AttentionInputs, prefix: str) -> _Call:
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
    sizes = (heads, heads // kv_heads, queries - lead, keys - first, dim, lead, first)
    return _Call(
        tensors=(q, k, mean, q if bias is None else bias.detach()),  # an unused pointer may be any
        strides=(*q.stride(), *k.stride(), *strides, period),
        sizes=(*sizes, float(inputs.scale)),
        images=inputs.images,
        batch=batch,
        heads=heads,
        queries=queries - lead,
        prefix=lead,
        tile=block_sizes(queries - lead, dim, wide=wide, biased=bias is not None),
        options={"WIDE": wide, "BIASED": bias is not None},
    )


def _rows(call: _Call, grid: TokenGrid, want: frozenset[str]) -> tuple[AttentionStats, Tensor]:
    """Return all statistics but the divergence, and log-sum-exps [batch, heads, queries]."""
    from attnprobe.kernels import _programs

    entropy, distance = (call.empty(call.batch, call.heads, call.blocks) for _ in range(2))
    mass = call.empty(call.batch, call.heads, call.blocks, call.prefix)
    lse = call.empty(call.batch, call.heads, call.queries if "kl" in want else 0)
    place = (grid.extent[1], float(grid.patch[0]), float(grid.patch[1]))
    launch(
        _programs.row_statistics,
        call.batch * call.heads * call.blocks,
        (*call.tensors, lse, entropy, distance, mass, *call.strides, *call.sizes, *place),
        **call.tile,
        **call.options,
        BLOCK_P=_power(call.prefix),
        LSE="kl" in want,
        DISTANCE="distance" in want,
        MASS="prefix_mass" in want and call.prefix > 0,
        SEPARATE=call.sizes[6] > 0,
    )

    def mean(name: str, sums: Tensor) -> Tensor | None:
        rows = sums.sum(2, dtype=torch.float64) / call.queries
        return _per_image(rows, call.images) if name in want else None

    stats = AttentionStats(
        distance=mean("distance", distance),
        entropy=mean("entropy", entropy.clamp(min=0)),
        prefix_mass=mean("prefix_mass", mass),
    )
    return stats, lse


def _divergence(call: _Call, lse: Tensor) -> Tensor:
    """Return the divergence of every pair of heads, fp32 [images, heads, heads]."""
    from attnprobe.kernels import _programs

    sums = call.empty(call.batch, call.heads, call.heads, call.blocks).zero_()
    pairs = call.heads * (call.heads - 1) // 2
    if pairs:
        launch(
            _programs.head_divergence,
            call.batch * pairs * call.blocks,
            (*call.tensors, lse, sums, *call.strides, *call.sizes),
            **call.tile,
            **call.options,
        )
    rows = sums.sum(3, dtype=torch.float64) / call.queries
    return _per_image(rows, call.images).clamp(min=0)


def _per_image(x: Tensor, images: int) -> Tensor:
    return x.unflatten(0, (images, -1)).mean(1).float()


def _power(size: int) -> int:
    """Return the power of two that holds `size`, and no less than a product takes.

    >>> _power(3), _power(64), _power(80)
    (16, 64, 128)
    """
    return max(16, 1 << (size - 1).bit_length()) if size else 16


def block_sizes(queries: int, dim: int, *, wide: bool, biased: bool) -> dict[str, int]:
    """Return block sizes and launch options of both programs.

    The largest that registers hold (fp32 spills tens of bytes on compute capability 8) and
    that fit the 99 KiB of shared memory a block has on the smallest cards.
    """
    block_d = min(32, _power(dim)) if wide else _power(dim)
    return {
        "BLOCK_M": min(64, _power(queries)),
        "BLOCK_N": 32 if wide or biased else 64,
        "BLOCK_D": block_d,
        "CHANNELS": -(-dim // block_d) * block_d,
        "num_warps": 4,
        "num_stages": 2,
    }
