"""Triton programs of the fused kernel: the logits of a block stay in registers.

Both programs read queries, keys and bias where the model left them, by strides; a stride of
zero broadcasts. Masked and absent keys get the finite logit MASKED, so that their weight is 0
and 0 * MASKED is 0. Products of fp32 values are split in three (tf32x3), since plain tf32
keeps three decimal digits; fp32 keys are centred first, which changes no probability and
keeps the digits that a component common to all keys would take.
"""
# Triton would read annotations of a program's arguments as their kinds.
# ruff: noqa: ANN001, ANN202

import triton
import triton.language as tl

MASKED = tl.constexpr(-1e30)


@triton.jit
def trial(out):
    """Write a number, to see whether programs can be compiled and started at all."""
    tl.store(out, 1.0)


@triton.jit
def _logits(
    q_rows, k, mean, bias_rows, columns, live, inside,
    q_dim, k_row, k_dim, bias_key, dim, scale,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Return one head's logits over the given key columns, fp32 [queries, keys].

    Queries and bias come as pointers to rows, and a block of channels is read at a time.
    """
    scores = tl.zeros([q_rows.shape[0], columns.shape[0]], tl.float32)
    for offset in range(0, CHANNELS, BLOCK_D):
        channels = offset + tl.arange(0, BLOCK_D)
        used = channels < dim
        pointers = q_rows[:, None] + channels[None, :] * q_dim
        queries = tl.load(pointers, mask=live[:, None] & used[None, :], other=0.0)
        pointers = k + channels[:, None] * k_dim + columns[None, :] * k_row
        keys = tl.load(pointers, mask=used[:, None] & inside[None, :], other=0.0)
        if WIDE:
            centre = tl.load(mean + channels, mask=used, other=0.0)
            queries, keys = queries.to(tl.float32), keys.to(tl.float32) - centre[:, None]
        scores = tl.dot(queries, keys, scores, input_precision="tf32x3")
    scores *= scale
    if BIASED:
        wanted = live[:, None] & inside[None, :]
        pointers = bias_rows[:, None] + columns[None, :] * bias_key
        scores += tl.load(pointers, mask=wanted, other=0.0).to(tl.float32)
        scores = tl.where(scores < MASKED, MASKED, scores)  # -inf goes, NaN stays and shows
    return tl.where(inside[None, :], scores, MASKED)


@triton.jit
def row_statistics(
    q, k, mean, bias, lse, entropy, distance, mass,
    q_batch, q_head, q_row, q_dim, k_batch, k_head, k_row, k_dim,
    bias_batch, bias_head, bias_row, bias_key, bias_period,
    heads, group, queries, keys, dim, prefix, first, scale, begin, step, cols, height, width,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, BIASED: tl.constexpr,
    LSE: tl.constexpr, DISTANCE: tl.constexpr, MASS: tl.constexpr, SEPARATE: tl.constexpr,
):  # fmt: skip
    """Sum the statistics of one head's block of queries in one pass over its keys.

    The entropy is log l - t / l with l = sum exp(S - m) and t = sum exp(S - m) (S - m), m the
    running maximum: at a peak both terms vanish, where lse - <P, S> would cancel.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK_M)
    pair = program // blocks  # batch and head
    batch, head = (pair // heads).to(tl.int64), pair % heads
    shared = head // group
    rows = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = rows < queries
    spots = begin + rows * step  # of the queries among the patches
    q_rows = q + batch * q_batch + head * q_head + (prefix + spots) * q_row
    k += batch * k_batch + shared * k_head
    mean += (batch * (heads // group) + shared) * dim
    bias += (batch % bias_period) * bias_batch + head * bias_head
    bias_rows = bias + (prefix + spots) * bias_row
    y, x = (spots // cols).to(tl.float32) * height, (spots % cols).to(tl.float32) * width
    top = tl.full([BLOCK_M], MASKED, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    inner = tl.zeros([BLOCK_M], tl.float32)
    far = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, keys, BLOCK_N):
        place = start + tl.arange(0, BLOCK_N)
        scores = _logits(
            q_rows, k, mean, bias_rows, first + place, live, place < keys,
            q_dim, k_row, k_dim, bias_key, dim, scale, CHANNELS, BLOCK_D, WIDE, BIASED,
        )  # fmt: skip
        peak = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - peak)
        scores -= peak[:, None]
        weights = tl.exp(scores)
        inner = shrink * (inner + total * (top - peak)) + tl.sum(weights * scores, 1)
        total = shrink * total + tl.sum(weights, 1)
        if DISTANCE:
            gap = _gaps(y, x, first + place - prefix, cols, height, width, SEPARATE)
            far = shrink * far + tl.sum(weights * gap, 1)
        top = peak
    log_total = tl.log(total)
    tl.store(entropy + program, tl.sum(tl.where(live, log_total - inner / total, 0.0), 0))
    if DISTANCE:
        tl.store(distance + program, tl.sum(tl.where(live, far / total, 0.0), 0))
    if LSE:
        tl.store(lse + pair.to(tl.int64) * queries + rows, top + log_total, mask=live)
    if MASS:
        place = tl.arange(0, BLOCK_P)
        inside = place < prefix
        scores = _logits(
            q_rows, k, mean, bias_rows, place, live, inside,
            q_dim, k_row, k_dim, bias_key, dim, scale, CHANNELS, BLOCK_D, WIDE, BIASED,
        )  # fmt: skip
        weights = _shares(scores - top[:, None], log_total, SEPARATE)
        weights = tl.where(live[:, None], weights, 0.0)
        tl.store(mass + program.to(tl.int64) * prefix + place, tl.sum(weights, 0), mask=inside)


@triton.jit
def _gaps(y, x, patches, cols, height, width, SEPARATE: tl.constexpr):
    """Return distances in pixels from patches centred at (y, x), up to one offset, fp32.

    Prefix tokens come before patch 0 and are at distance 0; `SEPARATE` ones never come.
    """
    dy = y[:, None] - ((patches // cols).to(tl.float32) * height)[None, :]
    dx = x[:, None] - ((patches % cols).to(tl.float32) * width)[None, :]
    gap = tl.sqrt(dy * dy + dx * dx)
    return gap if SEPARATE else tl.where((patches >= 0)[None, :], gap, 0.0)


@triton.jit
def _shares(scores, log_total, SEPARATE: tl.constexpr):
    """Return the weights of the prefix keys; `SEPARATE` ones are missing from the total."""
    if SEPARATE:
        peak = tl.maximum(tl.max(scores, 1), log_total)
        both = tl.sum(tl.exp(scores - peak[:, None]), 1) + tl.exp(log_total - peak)
        log_total = peak + tl.log(both)
    return tl.exp(scores - log_total[:, None])


@triton.jit
def head_divergence(
    q, k, mean, bias, lse, divergence,
    q_batch, q_head, q_row, q_dim, k_batch, k_head, k_row, k_dim,
    bias_batch, bias_head, bias_row, bias_key, bias_period,
    heads, group, queries, keys, dim, prefix, first, scale, begin, step,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Sum both divergences of one pair of heads over a block of queries.

    With L = S - lse, KL(a || b) = sum P_a (L_a - L_b) - P_a + P_b: no term is negative, and an
    error of the log-sum-exp is a relative one of the result, so that heads which are almost
    equal keep their digits.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK_M)
    pairs = heads * (heads - 1) // 2
    batch = (program // blocks // pairs).to(tl.int64)
    # every pair once: neighbours on a circle of heads, then those two apart, and so on
    index = program // blocks % pairs
    a = index % heads
    b = (a + index // heads + 1) % heads
    rows = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = rows < queries
    spots = begin + rows * step  # of the queries among the patches
    q_rows = q + batch * q_batch + (prefix + spots) * q_row
    k += batch * k_batch
    mean += batch * (heads // group) * dim
    bias += (batch % bias_period) * bias_batch
    lse += batch * heads * queries
    k_a, k_b = k + (a // group) * k_head, k + (b // group) * k_head
    mean_a, mean_b = mean + (a // group) * dim, mean + (b // group) * dim
    bias_rows = bias + (prefix + spots) * bias_row
    lse_a = tl.load(lse + a * queries + rows, mask=live, other=0.0)
    lse_b = tl.load(lse + b * queries + rows, mask=live, other=0.0)
    a_from_b = tl.zeros([BLOCK_M], tl.float32)
    b_from_a = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, keys, BLOCK_N):
        place = start + tl.arange(0, BLOCK_N)
        log_a = _logits(
            q_rows + a * q_head, k_a, mean_a, bias_rows + a * bias_head,
            first + place, live, place < keys,
            q_dim, k_row, k_dim, bias_key, dim, scale, CHANNELS, BLOCK_D, WIDE, BIASED,
        ) - lse_a[:, None]  # fmt: skip
        log_b = _logits(
            q_rows + b * q_head, k_b, mean_b, bias_rows + b * bias_head,
            first + place, live, place < keys,
            q_dim, k_row, k_dim, bias_key, dim, scale, CHANNELS, BLOCK_D, WIDE, BIASED,
        ) - lse_b[:, None]  # fmt: skip
        weight_a, weight_b = tl.exp(log_a), tl.exp(log_b)
        more, excess = log_a - log_b, weight_a - weight_b
        a_from_b += tl.sum(weight_a * more - excess, 1)
        b_from_a += tl.sum(excess - weight_b * more, 1)
    divergence += batch * heads * heads * blocks + program % blocks
    tl.store(divergence + (a * heads + b) * blocks, tl.sum(tl.where(live, a_from_b, 0.0), 0))
    tl.store(divergence + (b * heads + a) * blocks, tl.sum(tl.where(live, b_from_a, 0.0), 0))
