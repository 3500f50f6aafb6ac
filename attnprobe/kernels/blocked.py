"""Attention statistics in tiles: each logit is formed once, and two matrix products in all.

For a tile of logits S (head a, query q, key k) and P = softmax(S), everything a metric
needs is linear in P once the log-sum-exp of each row is known:

    distance_a = <P_a, D>        entropy_a = sum_q lse_a - <P_a, S_a>
    KL(a || b) = <P_a, S_a> - <P_a, S_b> - sum_q (lse_a - lse_b)

summed over (q, k). All head pairs and the distance cost one product of [heads x qk] with
[qk x (heads, D)], and no logarithm of a probability is ever taken. Keys (and bias rows) are
centred first: it changes no probability, keeps S near zero, and fp32 accurate both for logits
of 1e4 and for heads that are almost equal.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.kernels._tiles import (
    Cuts,
    Layer,
    Place,
    Tile,
    allocate,
    bias_of,
    centred_bias,
    centred_keys,
    cut,
    of_present,
    prepare,
    rounded,
    width,
)
from attnprobe.tensors import AttentionInputs, AttentionStats

# logits and probabilities of a tile together: the larger a tile, the slower the pair product
SMALL_BYTES = 5 << 20
TALL = 32  # rows below which the product of queries and keys is slow: worth a larger tile up to
TILE_BYTES = 16 << 20
PEAKED = 3.0  # nats by which a log-sum-exp exceeds that of flat logits
TINY = 1e-30  # below this a probability has lost the digits that a log-sum-exp needs


@dataclass(frozen=True)
class _Found:
    """What the tiles of one layer have left."""

    inner: Tensor  # [images, heads, heads] fp64: <P_a, S_b>; without kl, <P_a, S_a> in column 0
    distance: Tensor  # [images, heads] fp64: <P, D>
    lse: Tensor  # [heads, images, windows, n] fp64
    rest: Tensor  # what is left of lse where logits became log-probabilities
    prefix: Tensor  # [heads, images, windows, n, prefix] fp32: logits of prefix keys, or weights


@torch.no_grad()
def attention_stats(
    inputs: AttentionInputs, want: frozenset[str], *, prefix: str = "renormalised"
) -> AttentionStats:
    """Return per-image means over the patch queries (of all windows) that are there, fp32.

    Args:
        inputs: One layer of one batch.
        want: Any of distance, entropy, prefix_mass, kl.
        prefix: renormalised or included; other conventions live in `reference`.
    """
    layer = prepare(inputs, want, prefix)
    images, windows, heads, rows, _ = layer.q.shape
    fp64 = {"dtype": torch.float64, "device": layer.q.device}
    lse = torch.zeros(heads, images, windows, rows, **fp64)
    found = _Found(
        inner=torch.zeros(images, heads, heads, **fp64),
        distance=torch.zeros(images, heads, **fp64),
        lse=lse,
        rest=torch.zeros_like(lse),
        prefix=torch.zeros(*lse.shape, layer.prefix, dtype=torch.float32, device=layer.q.device),
    )
    row_bytes = 4 * (heads + width(layer)) * (layer.k.shape[3] - layer.first)
    least = min(TALL, TILE_BYTES // row_bytes)
    cuts = cut(images, windows, rows, most=max(SMALL_BYTES // row_bytes, least))
    for part in cuts.windows:
        _measure(layer, cuts, part, found)
    return _finish(layer, found)


def _measure(layer: Layer, cuts: Cuts, windows: slice, found: _Found) -> None:
    """Add some windows of all images to `found`."""
    cut_rows, kept = len(cuts.rows) > 1, dict[int, Tensor]()  # keys by image, for several tiles
    tile = bias = None
    for rows in cuts.rows:
        new = True  # what depends on the rows alone is made once for all images
        for images in cuts.images:
            place = Place(images, windows, rows)
            k = kept.get(images.start)
            if k is None:
                k = centred_keys(layer.k[images, windows], layer.first, transposed=cut_rows)
            if cut_rows:
                kept[images.start] = k
            if tile is None or tile.weights.shape[1:4] != place.shape:
                tile, new = allocate(layer, place.shape), True
            if new and layer.gaps is not None:
                layer.gaps.fill(tile.scores[tile.weights.shape[0]], windows, rows)
            if layer.bias is not None and (new or layer.bias.shape[0] > 1):
                bias = centred_bias(bias_of(layer.bias, *place), layer.first)
            new = False
            _add(layer, tile, place, k=k, bias=bias, found=found)


def _add(
    layer: Layer, tile: Tile, place: Place, *, k: Tensor, bias: Tensor | None, found: _Found
) -> None:
    """Fill one tile and add it to `found`."""
    # [heads x images x windows, rows, dim]
    q = layer.q[place.images, place.windows, :, place.rows].permute(2, 0, 1, 3, 4)
    q = q.flatten(0, 2).float()
    _fill_logits(layer, tile, q, k=k, bias=bias)
    torch.softmax(tile.logits, -1, out=tile.weights)
    if layer.want & {"entropy", "kl", "prefix_mass"}:
        here = (slice(None), *place)
        lse = _log_sum_exp(tile, layer, place.rows)
        found.lse[here] = lse
        found.rest[here] = _lower_peaks(tile.logits, lse)
        if "prefix_mass" in layer.want and layer.prefix:
            found.prefix[here] = _prefix(layer, tile, q, k=k, bias=bias)
    if layer.alive is not None:
        tile.weights.mul_(layer.alive[place].unsqueeze(-1))
    _inner_products(layer, tile, place.images, found)


def _fill_logits(layer: Layer, tile: Tile, q: Tensor, *, k: Tensor, bias: Tensor | None) -> None:
    """Write the centred logits."""
    logits = tile.logits.flatten(0, 2)  # [heads x images x windows, rows, keys]
    if bias is not None:
        tile.logits.copy_(bias[..., layer.first :].permute(2, 0, 1, 3, 4))
    beta = 0 if bias is None else 1
    k = k[..., layer.first :].flatten(0, 1)
    torch.baddbmm(logits, q, k, beta=beta, alpha=layer.scale, out=logits)


def _log_sum_exp(tile: Tile, layer: Layer, rows: slice) -> Tensor:
    """Return log sum_k exp S, float64 [heads, images, windows, rows], at no pass over the tile.

    S - log P is the same for every key of a row, so one key is enough: the query itself,
    which no mask removes. Where its probability has lost its digits, the pass is made; where
    queries are not keys, the likeliest key is looked for.
    """
    logits, weights = tile.logits, tile.weights
    if logits.is_cuda:
        return logits.logsumexp(-1).double()
    if not layer.selves:
        p, at = weights.max(-1, keepdim=True)
        return (logits.gather(-1, at) - p.double().log_()).squeeze(-1)
    start, step = layer.queries.start, layer.queries.step
    row = torch.arange(rows.stop - rows.start)
    own = start + step * (row + rows.start) + layer.prefix - layer.first  # the query as a key
    p = weights[..., row, own]
    if float(p.min()) < TINY:
        return logits.logsumexp(-1).double()
    # in fp32 the logarithm alone would cost more digits than everything before it
    return logits[..., row, own] - p.double().log_()


def _lower_peaks(logits: Tensor, lse: Tensor) -> Tensor:
    """Turn logits of peaked rows into log-probabilities, in place; return what is left of lse.

    Near a peak both <P, S> and the log-sum-exp are as large as the logit, and their
    difference, the entropy, would lose its digits. Flat rows are better left centred.
    """
    if not logits.is_cuda and float(lse.max()) < math.log(logits.shape[-1]) + PEAKED:
        return lse
    shift = lse.float()
    logits -= shift.unsqueeze(-1)
    return lse - shift


def _prefix(layer: Layer, tile: Tile, q: Tensor, *, k: Tensor, bias: Tensor | None) -> Tensor:
    """Return [heads, images, windows, rows, prefix]: logits of prefix keys that rows leave out.

    Where the rows include these keys, their weights are at hand and are returned instead.
    """
    if not layer.first:
        return tile.weights[..., : layer.prefix]
    scores = layer.scale * torch.bmm(q, k[..., : layer.prefix].flatten(0, 1))
    scores = scores.view(*tile.weights.shape[:-1], layer.prefix)
    if bias is not None:
        scores += bias[..., : layer.prefix].permute(2, 0, 1, 3, 4)
    return scores


def _inner_products(layer: Layer, tile: Tile, images: slice, found: _Found) -> None:
    """Add one tile's <P, S> and <P, D> to `found`."""
    heads = tile.weights.shape[0]
    columns = rounded(heads)
    p, s = _products(tile, apart=tile.weights.is_cuda)
    count = tile.weights.shape[1]

    def total(x: Tensor) -> Tensor:
        return x.unflatten(0, (count, -1)).sum(1, dtype=torch.float64)

    if "kl" in layer.want:
        inner = total(torch.bmm(p, s[..., :columns]))
        found.inner[images] += inner[..., :heads]
        if layer.gaps is not None and columns > heads:
            found.distance[images] += inner[..., heads]
            return
    elif "entropy" in layer.want:
        found.inner[images, :, 0] += total(torch.linalg.vecdot(p, s[..., :heads].transpose(1, 2)))
    if layer.gaps is not None:
        found.distance[images] += total(torch.bmm(p, s[..., heads : heads + 1])).squeeze(-1)


def _products(tile: Tile, *, apart: bool) -> tuple[Tensor, Tensor]:
    """Return weights [batch, heads, keys] and scores [batch, keys, columns] to be multiplied.

    All rows of an image are one sum where a product adds in parts (on a processor). cuBLAS adds
    the keys of so narrow a product one after another in fp32, which costs 10,000 of them more
    than a digit: there each row is a sum `apart`.
    """
    if apart:
        p, s = tile.weights.flatten(1, 3), tile.scores.flatten(1, 3)
    else:
        p, s = tile.weights.flatten(2), tile.scores.flatten(2)
    return p.transpose(0, 1), s.permute(1, 2, 0)


def _finish(layer: Layer, found: _Found) -> AttentionStats:
    """Turn sums over windows and query rows into means."""
    want, counts = layer.want, layer.counts.unsqueeze(1)  # [1 | images, 1]
    inner = found.inner / counts.unsqueeze(2)
    lse = of_present(layer, found.rest).sum((2, 3)).T / counts
    own = inner.diagonal(dim1=1, dim2=2) if "kl" in want else inner[..., 0]
    # log-sum-exp minus <P, S> is the entropy; its difference to the cross term is the KL
    kl = (own - lse).unsqueeze(2) - (inner - lse.unsqueeze(1))
    return AttentionStats(
        distance=(found.distance / counts).float() if "distance" in want else None,
        entropy=(lse - own).clamp(min=0).float() if "entropy" in want else None,
        prefix_mass=_prefix_mass(layer, found) if "prefix_mass" in want else None,
        kl=kl.clamp(min=0).float() if "kl" in want else None,
    )


def _prefix_mass(layer: Layer, found: _Found) -> Tensor:
    """Return mean attention on each prefix token, fp32 [images, heads, prefix]."""
    mass = found.prefix.double()
    if layer.first:
        total = torch.logaddexp(mass.logsumexp(-1), found.lse)
        mass = (mass - total.unsqueeze(-1)).exp_()
    total = of_present(layer, mass.movedim(-1, 0)).sum((3, 4))  # [prefix, heads, images]
    return (total / layer.counts).permute(2, 1, 0).float()
