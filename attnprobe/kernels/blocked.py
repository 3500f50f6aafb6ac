"""Attention statistics in tiles: two passes over memory and two matrix products.

For a tile of logits S (head a, query q, key k) and P = softmax(S), everything a metric
needs is linear in P once the log-sum-exp of each row is known:

    distance_a = <P_a, D>        entropy_a = sum_q lse_a - <P_a, S_a>
    KL(a || b) = <P_a, S_a> - <P_a, S_b> - sum_q (lse_a - lse_b)

with <., .> summed over (q, k). So all head pairs cost one [heads x qk] . [qk x heads]
product, and no logarithm of a probability is ever taken. Keys (and bias rows) are centred
first: it changes no probability, keeps S near zero, and so keeps fp32 accurate both for
logits of 1e4 and for heads that are almost equal.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.tensors import AttentionInputs, AttentionStats
from attnprobe.types import TokenGrid

# logits and probabilities of a tile together stay within the cores' second-level caches
TILE_BYTES = 2 << 20
MASKED = -1e30  # finite, so that 0 * MASKED is 0 and not NaN
PEAKED = 3.0  # nats by which a log-sum-exp exceeds that of flat logits
TINY = 1e-30  # below this a probability has lost the digits that a log-sum-exp needs


@dataclass(frozen=True)
class _Layer:
    """One layer made ready: patch queries, centred keys and bias, pair distances."""

    q: Tensor  # [batch, heads, n, dim]
    k: Tensor  # [batch, heads, dim, keys], centred and scaled
    bias: Tensor | None  # [1 | windows | batch, 1 | heads, 1 | n, keys], centred
    gap: Tensor | None  # [n, keys] fp32
    prefix_k: Tensor  # [batch, heads, dim, prefix]
    prefix_bias: Tensor | None
    separate: bool  # whether the prefix keys are missing from `k`


def attention_stats(
    inputs: AttentionInputs, want: frozenset[str], *, prefix: str = "renormalised"
) -> AttentionStats:
    """Return per-image means over patch queries (and windows), fp32.

    Args:
        inputs: One layer of one batch.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: renormalised or included; other conventions live in `reference`.
    """
    grid = inputs.grid
    layer = _prepare(inputs, grid, want=want, prefix=prefix)
    batch, heads, queries, _ = layer.q.shape
    keys = layer.k.shape[-1]
    # the last column holds <P, D>, the others <P, S>
    sums = torch.zeros(batch, heads, heads + 1, device=layer.q.device)
    lse = torch.zeros(batch, heads, queries, dtype=torch.float64, device=layer.q.device)
    rest = torch.zeros_like(lse)  # what is left of lse where the logits became log-probabilities
    for part, rows in _tiles(batch, queries, 8 * heads * keys):
        scores = _logits(layer, part, rows, windows=inputs.windows)
        weights = scores.softmax(-1)
        tile_lse = _log_sum_exp(scores, weights, rows.start + keys - queries)
        lse[part, :, rows] = tile_lse
        rest[part, :, rows] = _lower_peaks(scores, tile_lse)
        _inner_products(layer, scores, weights, rows=rows, want=want, sums=sums[part])
    mass = _prefix_mass(layer, lse, inputs.windows) if "prefix_mass" in want else None
    return _finish(sums / queries, rest.mean(-1), mass, images=inputs.images, want=want)


def _prepare(
    inputs: AttentionInputs, grid: TokenGrid, *, want: frozenset[str], prefix: str
) -> _Layer:
    first = grid.prefix if prefix == "renormalised" else 0
    k = inputs.k.float()
    centred = (k - k[:, :, first:].mean(2, keepdim=True)) * inputs.scale
    bias = _centre(inputs.bias, first, grid.prefix)
    gap = None
    if "distance" in want:
        gap = torch.tensor(grid.distances(), device=k.device)
        gap = torch.nn.functional.pad(gap, (grid.prefix - first, 0))  # [n, keys]
    return _Layer(
        q=inputs.q[:, :, grid.prefix :],
        k=centred[:, :, first:].transpose(-2, -1),
        bias=None if bias is None else bias[..., first:],
        gap=gap,
        prefix_k=centred[:, :, : grid.prefix].transpose(-2, -1),
        prefix_bias=None if bias is None else bias[..., : grid.prefix],
        separate=first > 0,
    )


def _centre(bias: Tensor | None, first: int, prefix: int) -> Tensor | None:
    """Shift each bias row to mean zero over its unmasked keys; masked pairs become finite."""
    if bias is None:
        return None
    bias = bias.float()
    if bias.shape[2] > 1:
        bias = bias[:, :, prefix:]
    masked = torch.isneginf(bias)
    keys = bias.masked_fill(masked, 0.0)
    count = (~masked[..., first:]).sum(-1, keepdim=True).clamp(min=1)
    centre = keys[..., first:].sum(-1, keepdim=True) / count
    return (keys - centre).masked_fill(masked, MASKED)


def _tiles(batch: int, queries: int, row_bytes: int) -> list[tuple[slice, slice]]:
    """Cut (batch, queries) so that a tile's logits and probabilities fit `TILE_BYTES`."""
    budget = max(1, TILE_BYTES // row_bytes)  # query rows, all heads together
    if budget >= queries:
        step = budget // queries
        return [(slice(b, min(b + step, batch)), slice(0, queries)) for b in range(0, batch, step)]
    pieces = -(-queries // budget)
    step = -(-queries // pieces)  # equal pieces: a short last tile wastes a launch
    return [
        (slice(b, b + 1), slice(q, min(q + step, queries)))
        for b in range(batch)
        for q in range(0, queries, step)
    ]


def _logits(layer: _Layer, part: slice, rows: slice, *, windows: int) -> Tensor:
    """Return the centred logits of one tile, fp32 [part, heads, rows, keys]."""
    scores = torch.matmul(layer.q[part, :, rows].float(), layer.k[part])
    if layer.bias is not None:
        scores += _bias_of(layer.bias, part, rows, windows=windows)
    return scores


def _inner_products(
    layer: _Layer,
    scores: Tensor,
    weights: Tensor,
    *,
    rows: slice,
    want: frozenset[str],
    sums: Tensor,
) -> None:
    """Add one tile's <P, S> and <P, D> to `sums`, [part, heads, heads + 1]."""
    size, heads = scores.shape[:2]
    p, s = weights.view(size, heads, -1), scores.view(size, heads, -1)  # [part, heads, rows * keys]
    if "kl" in want:
        sums[..., :heads] += p @ s.transpose(-2, -1)
    elif "entropy" in want:
        sums[..., 0] += torch.linalg.vecdot(p, s)
    if layer.gap is not None:
        sums[..., heads] += p @ layer.gap[rows].reshape(-1)


def _bias_of(bias: Tensor, part: slice, rows: slice, *, windows: int) -> Tensor:
    """Return the bias of a tile; a bias given once a window is looked up by position."""
    if bias.shape[2] > 1:
        bias = bias[:, :, rows]
    if bias.shape[0] == 1:
        return bias
    if bias.shape[0] == windows:
        index = torch.arange(part.start, part.stop, device=bias.device) % windows
        return bias[index]
    return bias[part]


def _log_sum_exp(scores: Tensor, weights: Tensor, diagonal: int) -> Tensor:
    """Return log sum_k exp S, float64 [part, heads, rows], with no further pass over the tile.

    S - log P is the same for every key of a row, so one key is enough: the query itself,
    which no mask removes. Where its probability has lost its digits, the pass is made.
    """
    p = weights.diagonal(diagonal, -2, -1)
    if scores.is_cuda or p.shape[-1] < scores.shape[-2] or float(p.min()) < TINY:
        return scores.logsumexp(-1).double()
    # in fp32 the logarithm alone would cost more digits than everything before it
    return scores.diagonal(diagonal, -2, -1) - p.double().log()


def _lower_peaks(scores: Tensor, lse: Tensor) -> Tensor:
    """Turn logits of peaked rows into log-probabilities, in place; return what is left of lse.

    Near a peak both <P, S> and the log-sum-exp are as large as the logit, and their
    difference, the entropy, would lose its digits. Flat rows are better left centred.
    """
    if not scores.is_cuda and float(lse.max()) < math.log(scores.shape[-1]) + PEAKED:
        return lse
    shift = lse.float()
    scores -= shift.unsqueeze(-1)
    return lse - shift


def _prefix_mass(layer: _Layer, lse: Tensor, windows: int) -> Tensor:
    """Return mean attention on each prefix token, float64 [batch, heads, prefix]."""
    scores = layer.q.float() @ layer.prefix_k  # [batch, heads, n, prefix]
    if layer.prefix_bias is not None:
        everything = slice(0, len(scores))
        scores += _bias_of(layer.prefix_bias, everything, slice(None), windows=windows)
    total = torch.logaddexp(scores.double().logsumexp(-1), lse) if layer.separate else lse
    return (scores - total.unsqueeze(-1)).exp().mean(2)


def _finish(
    sums: Tensor, lse: Tensor, mass: Tensor | None, *, images: int, want: frozenset[str]
) -> AttentionStats:
    """Turn means over rows of [batch, ...] into per-image statistics."""

    def per_image(x: Tensor) -> Tensor:
        return x.unflatten(0, (images, -1)).mean(1)

    heads = lse.shape[1]
    inner, distance = per_image(sums[..., :heads]).double(), per_image(sums[..., heads])
    lse = per_image(lse)
    own = inner.diagonal(dim1=1, dim2=2) if "kl" in want else inner[..., 0]
    # log-sum-exp minus <P, S> is the entropy; its difference to the cross term is the KL
    kl = (own - lse).unsqueeze(2) - (inner - lse.unsqueeze(1))
    return AttentionStats(
        distance=distance if "distance" in want else None,
        entropy=(lse - own).clamp(min=0).float() if "entropy" in want else None,
        prefix_mass=None if mass is None else per_image(mass).float(),
        kl=kl.clamp(min=0).float() if "kl" in want else None,
    )
