"""The specification: attention statistics in float64, written as METRICS.md defines them.

Every fast implementation is tested against these lines. They form whole N x N matrices,
one image at a time, and serve the rare conventions for which no fast path exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprobe.tensors import AttentionInputs, AttentionStats, every
from attnprobe.types import TokenGrid


def logits(inputs: AttentionInputs, window: slice) -> Tensor:
    """Return the logits of part of the batch, float64 [part, heads, queries, keys].

    They are the model's own, those of absent tokens included.
    """
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
    """Yield what counts of the logits of one image after the other (see `without_absent`)."""
    present = present_by_image(inputs)
    for image, start in enumerate(range(0, len(inputs.q), inputs.windows)):
        scores = logits(inputs, slice(start, start + inputs.windows))
        yield without_absent(scores, present[image])


def present_by_image(inputs: AttentionInputs) -> list[Tensor | None]:
    """Return which patches of each image are there, bool [1 | windows, patches], None for all."""
    if (present := inputs.present) is None:
        return [None] * inputs.images
    inputs.counts(present)
    return list(present.expand(inputs.images, -1, -1))


def without_absent(scores: Tensor, present: Tensor | None) -> Tensor:
    """Take absent keys out of logits, and make rows of absent queries flat, to be left out.

    Args:
        scores: [windows, heads, queries, keys], prefix tokens first.
        present: Which patches are there, bool [1 | windows, patches], or None for all.
    """
    if present is None:
        return scores
    there = F.pad(present, (scores.shape[-1] - present.shape[-1], 0), value=True)
    scores = scores.masked_fill(~there[:, None, None, :], float("-inf"))
    return scores.masked_fill(~there[:, None, :, None], 0.0)


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
    gaps = grid.distances()[..., queries, :]  # [queries, n], or [windows, queries, n]
    gap = torch.tensor(gaps, dtype=weights.dtype, device=weights.device)
    gap = gap.unsqueeze(1) if gap.ndim == 3 else gap
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
    """Return per-image means over the patch queries (of all windows) that are there, float64.

    Args:
        inputs: One layer of one batch.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: Convention for prefix keys.
        divergence: kl or js, the quantity in the `kl` field.
    """
    if inputs.layer.grid is None:
        want = want - {"distance"}
    how = {"prefix": prefix, "divergence": divergence, "step": inputs.step}
    rows = [
        stats_of(scores, inputs.grid, want, present=present, **how)
        for scores, present in zip(logits_by_image(inputs), present_by_image(inputs), strict=True)
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
    present: Tensor | None = None,
) -> AttentionStats:
    """Return the statistics of one image from its logits [windows, heads, queries, keys].

    Args:
        scores: The logits, without absent tokens.
        grid: Token geometry.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: Convention for prefix keys.
        divergence: kl or js.
        step: Only every step-th patch query counts.
        present: Which patches are there, bool [1 | windows, patches], or None for all.
    """
    queries = every(step, grid.queries)
    patches = scores[..., grid.prefix :, :][..., queries, :]
    scores = torch.cat([scores[..., : grid.prefix, :], patches], dim=-2)
    weights, log_weights = patch_rows(scores, grid, prefix)  # [windows, heads, n, keys]
    pairs = {"kl": kl, "js": jensen_shannon}[divergence]
    counted = None if present is None else present[:, queries]
    return AttentionStats(
        _mean(distance(weights, grid, queries), counted) if "distance" in want else None,
        _mean(entropy(weights, log_weights), counted) if "entropy" in want else None,
        _mean(prefix_mass(scores, grid).mT, counted) if "prefix_mass" in want else None,
        _mean(pairs(weights, log_weights), counted) if "kl" in want else None,
    )


def _mean(x: Tensor, counted: Tensor | None) -> Tensor:
    """Average [windows, ..., queries] over the windows and queries that count."""
    if counted is None:
        return x.mean((0, -1))
    weight = counted.to(x).expand(len(x), -1)
    weight = weight.reshape(len(x), *[1] * (x.ndim - 2), -1)
    return (x * weight).sum((0, -1)) / weight.sum()
