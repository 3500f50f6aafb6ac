"""Attention statistics on graphics cards: no logit ever leaves the registers.

There are two ways to the head divergences. `pairs`: one Triton program goes over the keys of a
head's block of queries with an online softmax and sums entropy, distance and prefix mass, and a
second, with each row's log-sum-exp known, takes two heads and sums the divergences of either
from the other. `together`: one program takes all heads of a block of queries and sums everything,
each logit made once; it is used where its blocks fit and its first answers were right (see
`pairs_because`). Memory is linear in the number of tokens, every sum is made in a fixed order,
and after the first layer of a kind nothing waits for the device, so a call can be part of a
CUDA graph.
"""

import torch
from torch import Tensor

from attnprobe.errors import AttnprobeError
from attnprobe.kernels import _together
from attnprobe.kernels._call import Call, block_sizes, per_image, power, prepare
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

__all__ = [
    "VARIANTS",
    "attention_stats",
    "block_sizes",
    "interpreted",
    "pairs_because",
    "preferred",
    "require",
    "unsupported",
]

VARIANTS = ("auto", "pairs", "together")


def attention_stats(
    inputs: AttentionInputs,
    want: frozenset[str],
    *,
    prefix: str = "renormalised",
    variant: str = "auto",
) -> AttentionStats:
    """Return per-image means over patch queries (and windows), fp32.

    Args:
        inputs: One layer of one batch.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: renormalised or included; other conventions live in `reference`.
        variant: How heads meet for kl: together, pairs, or auto for the faster that works.

    Raises:
        AttnprobeError: The device, a type or a size is beyond the kernel or the variant named,
            or Triton failed.
    """
    if variant not in VARIANTS:
        raise AttnprobeError(
            f"unknown variant {variant!r} of the fused kernel",
            f"choose one of: {', '.join(VARIANTS)}",
        )
    require(inputs)
    if inputs.layer.grid is None:
        want = want - {"distance"}
    call = prepare(inputs, prefix)
    with on_device(inputs.q):
        if "kl" in want and _goes_together(inputs, variant):
            try:
                return _together.run(call, inputs.grid, want)
            except AttnprobeError as error:
                if variant == "together":
                    raise
                _DISTRUSTED[_together.key(inputs)] = error.cause
        stats, lse = AttentionStats(), call.empty(0)
        if want:
            stats, lse = _rows(call, inputs.grid, want)
        if "kl" in want:
            stats = stats._replace(kl=_divergence(call, lse))
    return stats


def pairs_because(inputs: AttentionInputs) -> str:
    """Return why heads are taken by pairs for kl, or "" if all are taken together.

    The first time a device meets layers of a kind it runs a small one both ways and compares.

    Args:
        inputs: One layer of one batch, which the fused kernel can run.
    """
    reason = _together.unfit(inputs)
    if reason or interpreted():
        return reason
    kind = _together.key(inputs)
    if kind not in _DISTRUSTED:
        if torch.cuda.is_current_stream_capturing():
            return "the first layer of its kind is captured in a graph, where nothing can be tried"
        with on_device(inputs.q):
            _DISTRUSTED[kind] = _trial(_together.trial(inputs))
    return _DISTRUSTED[kind]


_DISTRUSTED: dict[_together.Key, str] = {}  # why by kind of layer, "" for no reason


def _trial(inputs: AttentionInputs) -> str:
    """Return how the two ways differ on these inputs, or "" if they agree."""
    names = frozenset(AttentionStats._fields)
    try:
        truth, found = (attention_stats(inputs, names, variant=name) for name in VARIANTS[1:])
    except AttnprobeError as error:
        return error.cause
    return _together.difference(found, truth)


def _goes_together(inputs: AttentionInputs, variant: str) -> bool:
    if variant != "together":
        return variant == "auto" and not pairs_because(inputs)
    reason = _together.unfit(inputs)
    if reason:
        raise AttnprobeError(f"heads cannot be taken together: {reason}", "leave the variant out")
    return True


def _rows(call: Call, grid: TokenGrid, want: frozenset[str]) -> tuple[AttentionStats, Tensor]:
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
        BLOCK_P=power(call.prefix),
        LSE="kl" in want,
        DISTANCE="distance" in want,
        MASS="prefix_mass" in want and call.prefix > 0,
        SEPARATE=call.sizes[6] > 0,
    )

    def mean(name: str, sums: Tensor) -> Tensor | None:
        rows = sums.sum(2, dtype=torch.float64) / call.queries
        return per_image(rows, call.images) if name in want else None

    stats = AttentionStats(
        distance=mean("distance", distance),
        entropy=mean("entropy", entropy.clamp(min=0)),
        prefix_mass=mean("prefix_mass", mass),
    )
    return stats, lse


def _divergence(call: Call, lse: Tensor) -> Tensor:
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
    return per_image(rows, call.images).clamp(min=0)
