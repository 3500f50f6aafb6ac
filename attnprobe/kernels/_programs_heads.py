"""Triton program of the fused kernel that takes all heads of a block of queries at once.

Every logit is made once, and one pass over the keys gives all statistics. With m the running
maximum of a row, w_a = exp(S_a - m_a) and l_a = sum w_a, the program keeps

    inner[a, b] = sum_k w_a (S_b - m_b)

by a product of [heads x keys] with [keys x heads] for each query, and

    KL(a || b) = (inner[a, a] - inner[a, b]) / l_a - log l_a + log l_b
    entropy_a  = log l_a - inner[a, a] / l_a

No term grows with the logits: the maxima cancel. Tensor cores want 16 rows, so that fewer heads
are stacked with those of the next queries; of a product's [16 x 16], the blocks of one query are
used and the others are not. Logits are in units of log 2, which spares a product for each
exponential. Conventions of reading, masking and centring are those of the other programs.
"""
# Triton would read annotations of a program's arguments as their kinds.
# ruff: noqa: ANN001, ANN202

import triton
import triton.language as tl

from attnprobe.kernels._programs import MASKED, _gaps

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _queries(q_rows, wanted, channels, q_dim, dim, WIDE: tl.constexpr):
    """Return some channels of the queries of all heads, [heads, queries, channels]."""
    pointers = q_rows[:, :, None] + channels[None, None, :] * q_dim
    used = wanted[:, :, None] & (channels < dim)[None, None, :]
    tile = tl.load(pointers, mask=used, other=0.0)
    return tile.to(tl.float32) if WIDE else tile


@triton.jit
def _all_logits(
    q_tile, q_rows, k, k_heads, mean_heads, bias, bias_rows, place, wanted, real, inside,
    q_dim, k_row, k_dim, bias_key, dim, scale,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Return logits of all heads over the keys at `place` after `k`, [heads, queries, keys].

    In units of log 2: `scale` comes with that factor, the bias without. What does not change
    from block to block of keys is an offset, what does is in the pointers `k` and `bias`.
    """
    scores = tl.zeros([q_rows.shape[0], q_rows.shape[1], place.shape[0]], tl.float32)
    for offset in range(0, CHANNELS, BLOCK_D):
        channels = offset + tl.arange(0, BLOCK_D)
        used = real[:, None] & (channels < dim)[None, :]
        offsets = k_heads[:, None] + channels[None, :] * k_dim
        offsets = offsets[:, :, None] + place[None, None, :] * k_row
        keys = tl.load(k + offsets, mask=used[:, :, None] & inside[None, None, :], other=0.0)
        if WIDE:
            centre = tl.load(mean_heads[:, None] + channels[None, :], mask=used, other=0.0)
            keys = keys.to(tl.float32) - centre[:, :, None]
        if CHANNELS > BLOCK_D:
            queries = _queries(q_rows, wanted, channels, q_dim, dim, WIDE)
            scores = tl.dot(queries, keys, scores, input_precision="tf32x3")
        else:
            scores = tl.dot(q_tile, keys, scores, input_precision="tf32x3")
    # absent keys, of which zeros were read, get MASKED by the addition that a product has anyway
    scores = scores * scale + tl.where(inside, 0.0, MASKED)[None, None, :]
    if BIASED:
        used = wanted[:, :, None] & inside[None, None, :]
        offsets = bias_rows[:, :, None] + place[None, None, :] * bias_key
        scores += tl.load(bias + offsets, mask=used, other=0.0).to(tl.float32) * LOG2E
        scores = tl.where(scores < MASKED, MASKED, scores)  # -inf goes, NaN stays and shows
    return scores


@triton.jit
def _stacked(x, STACK: tl.constexpr):
    """Turn [heads, queries, keys] into [groups, STACK, keys], a query's heads together."""
    x = tl.permute(x, (1, 0, 2))
    return tl.reshape(x, (x.shape[0] * x.shape[1] // STACK, STACK, x.shape[2]))


@triton.jit
def _bf16(x, EMULATED: tl.constexpr):
    """Round fp32 to bf16, two values an instruction: one by one takes the unit of exponentials.

    The interpreter truncates, and multiplies the bits of bf16 values: there they stay fp32.
    """
    if EMULATED:
        bits = (x.to(tl.int32, bitcast=True) + 0x8000) & -0x10000
        rounded = bits.to(tl.float32, bitcast=True)
    else:
        rounded = tl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,r,r", [x], tl.bfloat16, is_pure=True, pack=2
        )
    return rounded


@triton.jit
def _product(weights, scores, WIDE: tl.constexpr, EMULATED: tl.constexpr):
    """Return weights times transposed scores, [groups, STACK, STACK], from [.., STACK, keys].

    What comes from other keys is added by the caller: tensor cores round sums towards zero.
    """
    scores = tl.permute(scores, (0, 2, 1))
    if WIDE:
        inner = tl.dot(weights, scores, input_precision="tf32x3")
    else:
        # either as two bf16 values, whose sum keeps 16 binary digits
        weight_high, score_high = _bf16(weights, EMULATED), _bf16(scores, EMULATED)
        weight_low = _bf16(weights - weight_high.to(tl.float32), EMULATED)
        score_low = _bf16(scores - score_high.to(tl.float32), EMULATED)
        inner = tl.dot(weight_high, score_low)
        inner = tl.dot(weight_low, score_high, inner)
        inner = tl.dot(weight_high, score_high, inner)
    return inner


@triton.jit
def head_statistics(
    q, k, mean, bias, divergence, entropy, distance, mass,
    q_batch, q_head, q_row, q_dim, k_batch, k_head, k_row, k_dim,
    bias_batch, bias_head, bias_row, bias_key, bias_period,
    heads, group, queries, keys, dim, prefix, first, scale, begin, step, cols, height, width,
    HEADS: tl.constexpr, STACK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, BIASED: tl.constexpr, EMULATED: tl.constexpr,
    DISTANCE: tl.constexpr, MASS: tl.constexpr, SEPARATE: tl.constexpr,
):  # fmt: skip
    """Sum all statistics of all heads over a block of queries in one pass over the keys.

    Divergence [STACK / HEADS, heads, heads] and entropy [STACK / HEADS, heads] of a program are
    sums over every STACK / HEADS-th query; distance [heads] and mass [heads, prefix] are whole.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK_M)
    batch = (program // blocks).to(tl.int64)
    rows = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    head = tl.arange(0, HEADS)
    real, live = head < heads, rows < queries
    spots = begin + rows * step  # of the queries among the patches
    wanted = real[:, None] & live[None, :]
    q_rows = q + batch * q_batch + head[:, None] * q_head + (prefix + spots)[None, :] * q_row
    k += batch * k_batch
    k_heads = (head // group) * k_head
    mean_heads = mean + (batch * (heads // group) + head // group) * dim
    bias += (batch % bias_period) * bias_batch
    bias_rows = head[:, None] * bias_head + (prefix + spots)[None, :] * bias_row
    place = tl.arange(0, BLOCK_N)
    scale *= LOG2E
    # read once where all channels are taken together
    q_tile = _queries(q_rows, wanted, tl.arange(0, BLOCK_D), q_dim, dim, WIDE)
    y, x = (spots // cols).to(tl.float32) * height, (spots % cols).to(tl.float32) * width
    top = tl.full([HEADS, BLOCK_M], MASKED, tl.float32)
    total = tl.zeros([HEADS, BLOCK_M], tl.float32)
    far = tl.zeros([HEADS, BLOCK_M], tl.float32)
    # the same, stacked
    tops = tl.full([HEADS * BLOCK_M // STACK, STACK], MASKED, tl.float32)
    totals = tl.zeros([HEADS * BLOCK_M // STACK, STACK], tl.float32)
    inner = tl.zeros([HEADS * BLOCK_M // STACK, STACK, STACK], tl.float32)
    for start in range(0, keys, BLOCK_N):
        shift = first + start
        scores = _all_logits(
            q_tile, q_rows, k + shift * k_row, k_heads, mean_heads, bias + shift * bias_key,
            bias_rows, place, wanted, real, start + place < keys,
            q_dim, k_row, k_dim, bias_key, dim, scale, CHANNELS, BLOCK_D, WIDE, BIASED,
        )  # fmt: skip
        peak = tl.maximum(top, tl.max(scores, 2))
        shrink = tl.exp2(top - peak)
        scores -= peak[:, :, None]
        weights = tl.exp2(scores)
        sums = tl.sum(weights, 2)
        total = shrink * total + sums
        if DISTANCE:
            gap = _gaps(y, x, shift - prefix + place, cols, height, width, SEPARATE)
            far = shrink * far + tl.sum(weights * gap[None, :, :], 2)
        top = peak
        # both at once: what one product needs of another layout waits for all threads
        peaks, sums = tl.split(_stacked(tl.join(peak, sums), STACK))
        shrink = tl.exp2(tops - peaks)
        totals *= shrink
        more = _product(_stacked(weights, STACK), _stacked(scores, STACK), WIDE, EMULATED)
        more += totals[:, :, None] * (tops - peaks)[:, None, :]
        inner = inner * shrink[:, :, None] + more
        totals += sums
        tops = peaks
    log_total = tl.log2(total)
    if DISTANCE:
        far = tl.where(live[None, :], far / total, 0.0)
        tl.store(distance + program * heads + head, tl.sum(far, 1), mask=real)
    if MASS:
        place = tl.arange(0, BLOCK_P)
        scores = _all_logits(
            q_tile, q_rows, k, k_heads, mean_heads, bias, bias_rows, place, wanted, real,
            place < prefix, q_dim, k_row, k_dim, bias_key, dim, scale,
            CHANNELS, BLOCK_D, WIDE, BIASED,
        )  # fmt: skip
        shares = _shares(scores - top[:, :, None], log_total, SEPARATE)
        shares = tl.sum(tl.where(live[None, :, None], shares, 0.0), 1)
        mass += program.to(tl.int64) * heads * prefix
        used = real[:, None] & (place < prefix)[None, :]
        tl.store(mass + head[:, None] * prefix + place[None, :], shares, mask=used)
    _finish(
        inner, totals, divergence, entropy, program, heads,
        (program % blocks) * BLOCK_M, queries, HEADS, STACK,
    )  # fmt: skip


@triton.jit
def _shares(scores, log_total, SEPARATE: tl.constexpr):
    """Return the weights of the prefix keys; `SEPARATE` ones are missing from the total."""
    if SEPARATE:
        peak = tl.maximum(tl.max(scores, 2), log_total)
        both = tl.sum(tl.exp2(scores - peak[:, :, None]), 2) + tl.exp2(log_total - peak)
        log_total = peak + tl.log2(both)
    return tl.exp2(scores - log_total[:, :, None])


@triton.jit
def _finish(
    inner, total, divergence, entropy, program, heads, start, queries,
    HEADS: tl.constexpr, STACK: tl.constexpr,
):  # fmt: skip
    """Store divergences and entropies, summed over groups of queries."""
    groups: tl.constexpr = inner.shape[0]
    place = tl.arange(0, STACK)
    head, query = place % HEADS, place // HEADS
    group = tl.arange(0, groups)
    live = queries > start + group[:, None] * (STACK // HEADS) + query[None, :]
    log_total = tl.log2(total)
    own = tl.where((place[:, None] == place[None, :])[None, :, :], inner, 0.0)
    own = tl.sum(own, 2)
    rows = tl.where(live, log_total - own / total, 0.0)
    program = program.to(tl.int64)
    sums = entropy + program * (STACK // HEADS) * heads + query * heads + head
    tl.store(sums, tl.sum(rows, 0) * LN2, mask=head < heads)
    terms = (tl.expand_dims(own, 2) - inner) / total[:, :, None]
    terms += log_total[:, None, :] - log_total[:, :, None]
    terms = tl.sum(tl.where(live[:, :, None], terms, 0.0), 0)
    divergence += program * (STACK // HEADS) * heads * heads
    pairs = (query * heads + head)[:, None] * heads + head[None, :]
    same = (query[:, None] == query[None, :]) & (head < heads)[:, None] & (head < heads)[None, :]
    tl.store(divergence + pairs, terms * LN2, mask=same)
