"""The specification: attention statistics in float64, written as METRICS.md defines them.

Every fast implementation is tested against these lines. They form whole N x N matrices,
one image at a time, and serve the rare conventions for which no fast path exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from attnprobe.tensors import AttentionInputs, AttentionStats, every
from attnprobe.types import TokenGrid


def logits(inputs: AttentionInputs, window: slice) -> Tensor:
    """Return the logits of part of the batch, float64 [part, heads, queries, keys]."""
    q, k = inputs.q[window].double(), inputs.keys[window].double()
    scores = inputs.scale * q @ k.transpose(-2, -1)
    if inputs.bias is None:
        return scores
    bias = inputs.bias
    if bias.shape[0] == inputs.windows:  # given once a window: look it up by position
        bias = bias[torch.arange(len(inputs.q))[window] % inputs.windows]
    elif bias.shape[0] > 1:
        bias = bias[window]
    return scores + bias.double()


def logits_by_image(inputs: AttentionInputs) -> Iterator[Tensor]:
    """Yield the logits of one image after the other, [windows, heads, queries, keys]."""
    for start in range(0, len(inputs.q), inputs.windows):
        yield logits(inputs, slice(start, start + inputs.windows))


def patch_rows(scores: Tensor, grid: TokenGrid, prefix: str) -> tuple[Tensor, Tensor]:
    """Return probabilities of the patch queries and their logarithms.

    Args:
        scores: Logits, [..., queries, keys], prefix tokens first.
        grid: Token geometry.
        prefix: renormalised, excluded or included (see `MetricOptions`).

    Returns:
        Weights and log-weights, [..., patches, patches (+ prefix when included)].
    """
    scores = scores[..., grid.prefix :, :]
    if prefix == "renormalised":
        scores = scores[..., grid.prefix :]
    log_weights = scores.log_softmax(-1)
    if prefix == "excluded":
        log_weights = log_weights[..., grid.prefix :]
    return log_weights.exp(), log_weights


def distance(weights: Tensor, grid: TokenGrid, queries: slice = slice(None)) -> Tensor:
    """Return sum_k A'[q, k] * |c_q - c_k| in pixels; keys beyond the patches are prefix."""
    gap = torch.tensor(grid.distances()[queries], dtype=weights.dtype, device=weights.device)
    patches = weights[..., weights.shape[-1] - grid.patches :]
    return (patches * gap).sum(-1)


def entropy(weights: Tensor, log_weights: Tensor) -> Tensor:
    """Return -sum_k A' log A' in nats, with 0 log 0 = 0."""
    return -(weights * log_weights).masked_fill(weights == 0, 0.0).sum(-1)


def kl(weights: Tensor, log_weights: Tensor) -> Tensor:
    """Return sum_k A'_a log(A'_a / A'_b) for all ordered pairs, [..., heads, heads, queries]."""
    p, log_p = weights.unsqueeze(-3), log_weights.unsqueeze(-3)  # [..., a, 1, q, k]
    log_r = log_weights.unsqueeze(-4)  # [..., 1, b, q, k]
    # where p = 0 the term is 0 whatever the other head does, also for pairs masked in both
    return torch.where(p == 0, 0.0, p * (log_p - log_r)).sum(-1)


def jensen_shannon(weights: Tensor, log_weights: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of all pairs, [..., heads, heads, queries]."""
    p, r = weights.unsqueeze(-3), weights.unsqueeze(-4)
    log_mix = (0.5 * (p + r)).log()
    half = torch.where(p == 0, 0.0, p * (log_weights.unsqueeze(-3) - log_mix)).sum(-1)
    return 0.5 * (half + half.transpose(-3, -2))


def prefix_mass(scores: Tensor, grid: TokenGrid) -> Tensor:
    """Return attention of patch queries on each prefix token, [..., queries, prefix]."""
    return scores[..., grid.prefix :, :].softmax(-1)[..., : grid.prefix]


def attention_stats(
    inputs: AttentionInputs,
    want: frozenset[str],
    *,
    prefix: str = "renormalised",
    divergence: str = "kl",
) -> AttentionStats:
    """Return per-image means over patch queries (and windows), float64.

    Args:
        inputs: One layer of one batch.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: Convention for prefix keys.
        divergence: kl or js, the quantity in the `kl` field.
    """
    if inputs.layer.grid is None:
        want = want - {"distance"}
    rows = [
        stats_of(scores, inputs.grid, want, prefix=prefix, divergence=divergence, step=inputs.step)
        for scores in logits_by_image(inputs)
    ]
    fields = zip(*rows, strict=True)
    return AttentionStats(*(None if field[0] is None else torch.stack(field) for field in fields))


def stats_of(
    scores: Tensor,
    grid: TokenGrid,
    want: frozenset[str],
    *,
    prefix: str,
    divergence: str,
    step: int = 1,
) -> AttentionStats:
    """Return the statistics of one image from its logits [windows, heads, queries, keys]."""
    queries = every(step, grid.queries)
    patches = scores[..., grid.prefix :, :][..., queries, :]
    scores = torch.cat([scores[..., : grid.prefix, :], patches], dim=-2)
    weights, log_weights = patch_rows(scores, grid, prefix)  # [windows, heads, n, keys]
    pairs = {"kl": kl, "js": jensen_shannon}[divergence]
    return AttentionStats(
        distance(weights, grid, queries).mean((0, 2)) if "distance" in want else None,
        entropy(weights, log_weights).mean((0, 2)) if "entropy" in want else None,
        prefix_mass(scores, grid).mean((0, 2)) if "prefix_mass" in want else None,
        pairs(weights, log_weights).mean((0, 3)) if "kl" in want else None,
    )
