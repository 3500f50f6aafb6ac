"""Kernels: the reference against numpy and scipy, the fast path against the reference."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, rel_entr, softmax
from torch.utils._python_dispatch import TorchDispatchMode

from attnprobe import doctor, kernels
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import _tiles, blocked, reference
from attnprobe.tensors import AttentionInputs
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

ALL = doctor.ALL


def inputs_of(grid, logits):
    """Attention whose logits are exactly `logits` [batch, heads, queries, keys]."""
    batch, heads, _, keys = logits.shape
    layer = LayerInfo(0, "test", heads, keys, grid)
    eye = torch.eye(keys).expand(batch, heads, keys, keys)
    return AttentionInputs(layer, batch, logits.float(), eye, 1.0)


def numpy_stats(logits, grid):
    """Plain numpy and scipy on one image, written without the project's code."""
    scores = logits.double().numpy()[:, grid.prefix :, :]
    weights = softmax(scores[..., grid.prefix :], axis=-1)
    y, x = np.divmod(np.arange(grid.patches), grid.cols)
    centres = np.stack([y * grid.patch[0], x * grid.patch[1]], 1)
    gap = cdist(centres, centres)
    distance = (weights * gap).sum(-1).mean(-1)
    entropy = -(weights * log_softmax(scores[..., grid.prefix :], axis=-1)).sum(-1).mean(-1)
    mass = softmax(scores, axis=-1)[..., : grid.prefix].mean(1)
    kl = [[rel_entr(a, b).sum(-1).mean() for b in weights] for a in weights]
    return distance, entropy, mass, np.array(kl)


def test_reference_agrees_with_numpy_and_scipy():
    grid = TokenGrid(3, 4, (16, 8), prefix=2)
    logits = 2 * torch.randn(1, 3, 14, 14, generator=torch.Generator().manual_seed(1)).double()
    found = reference.attention_stats(inputs_of(grid, logits), ALL)
    for ours, theirs in zip(found, numpy_stats(logits.float()[0], grid), strict=True):
        np.testing.assert_allclose(ours[0].numpy(), theirs, rtol=1e-7, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    prefix=st.integers(0, 5),
    heads=st.integers(1, 5),
    dim=st.sampled_from([1, 3, 20, 64]),
    spread=st.sampled_from([0.0, 0.05, 0.5, 1.0, 3.0]),
    windows=st.sampled_from([1, 1, 4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    convention=st.sampled_from(["renormalised", "included"]),
)
def test_blocked_agrees_with_float64(
    rows, cols, prefix, heads, dim, spread, windows, dtype, convention
):
    window = (rows, cols) if windows > 1 else None
    grid = TokenGrid(rows, cols, (16, 16), 0 if window else prefix, window)
    inputs = doctor.example(grid, heads, dim, windows=windows, spread=spread, dtype=dtype)
    found = blocked.attention_stats(inputs, ALL, prefix=convention)
    truth = reference.attention_stats(inputs, ALL, prefix=convention)
    # beyond 30 nats the rounding of the fp32 logits themselves shows
    peak = inputs.scale * (inputs.q.double() @ inputs.k.double().mT).abs().max().item()
    assert doctor.deviation(found, truth) < 1e-5 * max(1.0, peak / 30)


def cut_finely(monkeypatch, tile_bytes, tall):
    monkeypatch.setattr(blocked, "SMALL_BYTES", tile_bytes)
    monkeypatch.setattr(blocked, "TILE_BYTES", 4 * tile_bytes)
    monkeypatch.setattr(blocked, "TALL", tall)


@pytest.mark.parametrize("tile_bytes", [1, 900, 2500, 5000, 20_000, 1 << 30])
@pytest.mark.parametrize("tall", [1, 4])
@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_tiles_do_not_change_the_answer(monkeypatch, tile_bytes, tall, windows, spread):
    window = (5, 5) if windows > 1 else None
    grid = TokenGrid(5, 5, (16, 8), 0 if window else 3, window)
    inputs = doctor.example(grid, 3, 8, windows=windows, spread=spread)
    truth = reference.attention_stats(inputs, ALL)
    cut_finely(monkeypatch, tile_bytes, tall)
    assert doctor.deviation(blocked.attention_stats(inputs, ALL), truth) < 1e-5


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 9),
    windows=st.integers(1, 9),
    rows=st.integers(1, 40),
    most=st.integers(0, 400),
)
def test_every_row_is_in_one_tile(images, windows, rows, most):
    cuts = _tiles.cut(images, windows, rows, most=most)
    seen = np.zeros((images, windows, rows), dtype=int)
    for i in cuts.images:
        for w in cuts.windows:
            for r in cuts.rows:
                seen[i, w, r] += 1
                assert seen[i, w, r].size <= max(most, 1)
    assert (seen == 1).all()


@pytest.mark.parametrize("tile_bytes", [1500, 1 << 30])
@pytest.mark.parametrize("heads", [1, 4, 9, 12, 16, 17])
def test_each_statistic_alone(monkeypatch, tile_bytes, heads):
    inputs = doctor.example(TokenGrid(3, 4, (16, 16), prefix=2), heads, 8)
    truth = reference.attention_stats(inputs, ALL)._asdict()
    cut_finely(monkeypatch, tile_bytes, 2)
    for want in ({"distance"}, {"entropy"}, {"kl"}, {"prefix_mass"}, {"distance", "entropy"}):
        found = blocked.attention_stats(inputs, frozenset(want))._asdict()
        assert {name for name, value in found.items() if value is not None} == want
        for name in want:
            torch.testing.assert_close(found[name].double(), truth[name], rtol=1e-5, atol=1e-6)


BIASES = {
    "the same everywhere": (1, 1, 1),
    "per head": (1, 3, 14),
    "per image": (2, 1, 14),
    "per image and head": (2, 3, 14),
    "a key mask per image": (2, 1, 1),
}


@pytest.mark.parametrize("shape", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("prefix", ["renormalised", "included"])
@pytest.mark.parametrize("tile_bytes", [1, 3000, 1 << 30])
def test_biases_of_every_shape(monkeypatch, shape, prefix, tile_bytes):
    inputs = doctor.example(TokenGrid(3, 4, (16, 16), prefix=2), 3, 8)
    generator = torch.Generator().manual_seed(4)
    bias = 3 * torch.randn(*shape, 14, generator=generator)
    bias[..., [5, 9]] = -math.inf
    biased = replace(inputs, bias=bias)
    cut_finely(monkeypatch, tile_bytes, 3)
    found = blocked.attention_stats(biased, ALL, prefix=prefix)
    assert doctor.deviation(found, reference.attention_stats(biased, ALL, prefix=prefix)) < 1e-5


def test_masks_of_a_finite_number_are_masks():
    inputs = doctor.example(TokenGrid(3, 4, (16, 16), prefix=2), 3, 8)
    bias = torch.zeros(1, 1, 14, 14)
    bias[..., 5] = -math.inf
    masked = blocked.attention_stats(replace(inputs, bias=bias), ALL)
    bias[..., 5] = torch.finfo(torch.float32).min
    for ours, theirs in zip(
        blocked.attention_stats(replace(inputs, bias=bias), ALL), masked, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_nearly_equal_heads_under_keys_far_from_zero(monkeypatch):
    # what all keys share cancels in every probability, and must not cost the digits that matter
    inputs = doctor.example(TokenGrid(8, 8, (16, 16), prefix=1), 4, 16, spread=0.3)
    shifted = replace(inputs, k=inputs.k + 1000.0)
    truth = reference.attention_stats(shifted, ALL).kl
    off = ~torch.eye(4, dtype=torch.bool)
    assert truth[:, off].max() < 0.02
    for tile_bytes in (1, 20_000, 1 << 30):
        cut_finely(monkeypatch, tile_bytes, 4)
        found = blocked.attention_stats(shifted, ALL).kl
        assert ((found.double() - truth).abs() / truth)[:, off].max() < 1e-3


@pytest.mark.parametrize("transposed", [True, False])
def test_keys_are_centred_on_the_patches(transposed):
    k = doctor.example(TokenGrid(3, 4, (16, 16), prefix=2), 3, 8).k.unflatten(0, (2, 1)) + 5.0
    found = _tiles.centred_keys(k, 2, transposed=transposed)
    assert found.shape == (3, 2, 8, 14)
    assert found[..., 2:].mean(-1).abs().max() < 1e-6
    apart = (found[1, 0].T - (k[0, 0, 1] - k[0, 0, 1, 2:].mean(0))).abs()
    assert apart.max() < 1e-5


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(found):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // 4)
        return found


def test_memory_grows_with_the_tokens_and_not_with_their_square(monkeypatch):
    cut_finely(monkeypatch, 1 << 16, 4)
    for side in (16, 32):
        inputs = doctor.example(TokenGrid(side, side, (16, 16), prefix=1), 2, 4)
        with Largest() as largest:
            stats = blocked.attention_stats(inputs, ALL)
        assert largest.elements <= max(inputs.k.numel(), blocked.TILE_BYTES // 4)
        assert largest.elements < side**4 // 2  # half of one matrix over all pairs
    truth = reference.attention_stats(inputs, ALL)
    assert doctor.deviation(stats, truth) < 1e-5


def test_gradients_are_not_recorded():
    inputs = doctor.example(TokenGrid(3, 4, (16, 16), prefix=2), 3, 8)
    grown = replace(inputs, q=inputs.q.requires_grad_())
    assert not any(x.requires_grad for x in blocked.attention_stats(grown, ALL))


@pytest.mark.parametrize("implementation", [reference, blocked])
def test_uniform_attention(implementation):
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    stats = implementation.attention_stats(inputs_of(grid, torch.zeros(1, 2, 197, 197)), ALL)
    torch.testing.assert_close(
        stats.distance.double(), torch.full((1, 2), 116.4925).double(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(stats.entropy.double(), torch.full((1, 2), math.log(196)).double())
    torch.testing.assert_close(stats.prefix_mass.double(), torch.full((1, 2, 1), 1 / 197).double())
    assert stats.kl.abs().max() < 1e-6


@pytest.mark.parametrize("implementation", [reference, blocked])
def test_identity_attention(implementation):
    grid = TokenGrid(4, 4, (16, 16))
    stats = implementation.attention_stats(inputs_of(grid, 1e4 * torch.eye(16)[None, None]), ALL)
    assert stats.distance.abs().max() == 0
    assert stats.entropy.abs().max() == 0


@pytest.mark.parametrize("implementation", [reference, blocked])
def test_attention_one_column_to_the_right(implementation):
    grid = TokenGrid(4, 4, (16, 16))
    target = torch.tensor([row * 4 + min(col + 1, 3) for row in range(4) for col in range(4)])
    logits = 1e4 * torch.nn.functional.one_hot(target, 16).float()[None, None]
    stats = implementation.attention_stats(inputs_of(grid, logits), ALL)
    assert stats.distance.item() == pytest.approx(16 * 3 / 4)  # the last column looks at itself


@pytest.mark.parametrize("implementation", [reference, blocked])
def test_kl_of_a_permuted_head_by_hand(implementation):
    # head b is head a with its keys reversed: KL = sum p log(p / reversed p), by hand
    p = np.array([0.4, 0.3, 0.2, 0.1])
    expected = 0.4 * np.log(4) + 0.3 * np.log(1.5) + 0.2 * np.log(2 / 3) + 0.1 * np.log(0.25)
    logits = torch.tensor(np.log(np.stack([p, p[::-1]])))[None, :, None].expand(1, 2, 4, 4)
    stats = implementation.attention_stats(inputs_of(TokenGrid(2, 2, (1, 1)), logits), ALL)
    assert stats.kl[0, 0, 1].item() == pytest.approx(expected, rel=1e-6)
    assert stats.kl[0, 1, 0].item() == pytest.approx(expected, rel=1e-6)
    assert stats.kl[0, 0, 0].item() == pytest.approx(0, abs=1e-7)


def test_kl_is_not_symmetric():
    grid = TokenGrid(1, 3, (1, 1))
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])[None, :, None].expand(1, 2, 3, 3)
    kl = blocked.attention_stats(inputs_of(grid, logits), ALL).kl[0]
    p, r = softmax([2.0, 0.0, 0.0]), np.full(3, 1 / 3)
    assert kl[0, 1].item() == pytest.approx(rel_entr(p, r).sum(), rel=1e-5)
    assert kl[1, 0].item() == pytest.approx(rel_entr(r, p).sum(), rel=1e-5)
    assert kl[0, 1] != kl[1, 0]


def test_small_divergences_keep_their_digits():
    # nearly flat heads: the divergence is a thousand times smaller than the entropies in it
    inputs = doctor.example(TokenGrid(14, 14, (16, 16), prefix=1), 4, 64, spread=0.2)
    found, truth = (x.attention_stats(inputs, ALL).kl for x in (blocked, reference))
    off = ~torch.eye(4, dtype=torch.bool)
    assert truth[:, off].max() < 5e-3
    assert ((found.double() - truth).abs() / truth)[:, off].max() < 1e-4


def test_a_constant_on_every_logit_changes_nothing():
    inputs = doctor.example(TokenGrid(5, 5, (16, 16), prefix=1), 2, 16)
    constant = torch.randn(1, 2, 26, 1, generator=torch.Generator().manual_seed(2)) * 1e3
    shifted = AttentionInputs(
        inputs.layer, 2, inputs.q, inputs.k, inputs.scale, constant.expand(1, 2, 26, 26)
    )
    plain = blocked.attention_stats(inputs, ALL)
    assert doctor.deviation(blocked.attention_stats(shifted, ALL), plain) < 2e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_huge_logits_stay_finite(dtype):
    inputs = doctor.example(TokenGrid(6, 6, (16, 16), prefix=1), 3, 16, spread=1.0, dtype=dtype)
    huge = AttentionInputs(inputs.layer, 2, inputs.q, inputs.k, 2500.0, None)
    assert (2500 * inputs.q.float() @ inputs.k.float().mT).abs().max() > 1e4
    stats = blocked.attention_stats(huge, ALL)
    assert all(torch.isfinite(x).all() for x in stats)
    assert doctor.deviation(stats, reference.attention_stats(huge, ALL)) < 1e-3


def test_masked_pairs_carry_no_weight():
    grid = TokenGrid(2, 4, (4, 4), window=(2, 2))
    layer = LayerInfo(0, "test", 1, 4, grid)
    mask = torch.zeros(2, 1, 4, 4)
    mask[1, :, :, 3], mask[1, :, 3, :3] = float("-inf"), float("-inf")
    mask[1, :, 3, 3] = 0.0
    inputs = AttentionInputs(layer, 1, torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), 1.0, mask)
    stats = blocked.attention_stats(inputs, ALL)
    # window 0: four keys; window 1: three queries with three keys, one with itself alone
    expected = (4 * math.log(4) + 3 * math.log(3)) / 8
    assert stats.entropy.item() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.floats(0, 8))
def test_ranges_and_flips(seed, spread):
    grid = TokenGrid(3, 5, (16, 16))
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(1, 3, 15, 15, generator=generator)
    stats = blocked.attention_stats(inputs_of(grid, logits), ALL)
    assert (stats.entropy >= 0).all()
    assert (stats.entropy <= math.log(15) + 1e-5).all()
    assert (stats.kl >= 0).all()
    flip = torch.arange(15).view(3, 5).flip(1).flatten()
    flipped = blocked.attention_stats(inputs_of(grid, logits[..., flip, :][..., flip]), ALL)
    torch.testing.assert_close(flipped.distance, stats.distance, rtol=1e-5, atol=1e-5)
    heads = torch.tensor([2, 0, 1])
    reordered = blocked.attention_stats(inputs_of(grid, logits[:, heads]), ALL)
    torch.testing.assert_close(reordered.entropy, stats.entropy[:, heads], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reordered.kl, stats.kl[:, heads][:, :, heads], rtol=1e-4, atol=1e-5)


def test_excluded_prefix_is_not_renormalised():
    grid = TokenGrid(2, 2, (16, 16), prefix=4)
    inputs = inputs_of(grid, torch.zeros(1, 1, 8, 8))
    stats = kernels.attention_stats(inputs, ALL, MetricOptions(prefix="excluded"))
    assert stats.distance.item() == pytest.approx(0.5 * grid.distances().mean())
    assert stats.entropy.item() == pytest.approx(0.5 * math.log(8))


def test_jensen_shannon_is_bounded_and_symmetric():
    logits = 1e3 * torch.eye(4).roll(1, 0)[None, None]
    logits = torch.cat([logits, 1e3 * torch.eye(4)[None, None]], 1)
    options = MetricOptions(divergence="js")
    stats = kernels.attention_stats(inputs_of(TokenGrid(2, 2, (1, 1)), logits), ALL, options)
    torch.testing.assert_close(stats.kl[0], math.log(2) * (1 - torch.eye(2)))


def test_a_kernel_without_the_convention_is_refused():
    with pytest.raises(AttnprobeError, match="excluded"):
        kernels.choose(MetricOptions(prefix="excluded"), "blocked")
    with pytest.raises(AttnprobeError, match="unknown kernel"):
        kernels.choose(MetricOptions(), "fast")


@pytest.mark.parametrize("inputs", [None, doctor.example(TokenGrid(2, 2, (16, 16)), 2, 8)])
def test_what_auto_chooses_on_a_processor(inputs):
    assert kernels.choose(MetricOptions(), inputs=inputs) == "blocked"
    assert kernels.choose(MetricOptions(prefix="included"), inputs=inputs) == "blocked"
    assert kernels.choose(MetricOptions(prefix="excluded"), inputs=inputs) == "reference"
    assert kernels.choose(MetricOptions(), "reference", inputs) == "reference"


@pytest.mark.parametrize("implementation", ["reference", "blocked"])
def test_grouped_keys_are_those_of_their_group(implementation):
    grid, generator = TokenGrid(3, 4, (16, 8), prefix=1), torch.Generator().manual_seed(9)
    q = torch.randn(2, 6, 13, 8, generator=generator)
    k = torch.randn(2, 2, 13, 8, generator=generator)
    layer = LayerInfo(0, "test", 6, 8, grid)
    grouped = AttentionInputs(layer, 2, q, k, 0.3)
    whole = replace(grouped, k=torch.stack([k[:, head // 3] for head in range(6)], dim=1))
    found, expected = (
        kernels.attention_stats(inputs, ALL, implementation=implementation)
        for inputs in (grouped, whole)
    )
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 7),
    cols=st.integers(1, 7),
    prefix=st.integers(0, 3),
    step=st.integers(1, 60),
    convention=st.sampled_from(["renormalised", "included"]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_some_queries_are_measured_as_if_there_were_no_others(
    rows, cols, prefix, step, convention, biased, seed
):
    generator = torch.Generator().manual_seed(seed)
    grid = TokenGrid(rows, cols, (16, 8), prefix=prefix)
    q, k = (torch.randn(2, 3, grid.tokens, 8, generator=generator) for _ in "qk")
    bias = torch.randn(1, 3, grid.tokens, grid.tokens, generator=generator) if biased else None
    layer = LayerInfo(0, "test", 3, 8, grid)
    inputs = AttentionInputs(layer, 2, q, k, 0.3, bias, step)
    scores = reference.logits(inputs, slice(0, 2))
    weights, logs = reference.patch_rows(scores, grid, convention)
    kept = [n for n in range(grid.patches) if (n - min(step, grid.patches) // 2) % step == 0]
    kept = [n for n in kept if n >= min(step, grid.patches) // 2]
    assert kept
    expected = {
        "distance": reference.distance(weights, grid)[..., kept].mean(-1),
        "entropy": reference.entropy(weights, logs)[..., kept].mean(-1),
        "kl": reference.kl(weights, logs)[..., kept].mean(-1),
        "prefix_mass": reference.prefix_mass(scores, grid)[..., kept, :].mean(-2),
    }
    for module, tolerance in ((reference, 1e-9), (blocked, 2e-5)):
        found = module.attention_stats(inputs, ALL, prefix=convention)._asdict()
        for name, truth in expected.items():
            torch.testing.assert_close(
                found[name].double(), truth, rtol=tolerance, atol=tolerance, msg=name
            )


@pytest.mark.parametrize("want", [ALL, frozenset({"distance", "entropy"}), frozenset({"distance"})])
def test_rows_that_are_summed_apart_give_the_same(monkeypatch, want):
    inputs = doctor.example(doctor.CASES[-1][1], 3, 32, windows=4)
    together = blocked.attention_stats(inputs, want)
    monkeypatch.setattr(blocked, "_products", partial(_apart, blocked._products))
    apart = blocked.attention_stats(inputs, want)
    for one, other in zip(together, apart, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def _apart(products, tile, *, apart):
    del apart
    return products(tile, apart=True)
