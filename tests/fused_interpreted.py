"""The fused kernel under Triton's interpreter, run by test_fused.py in a process of its own."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprobe import doctor, kernels
from attnprobe.kernels import fused, reference
from attnprobe.tensors import AttentionInputs
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

ALL = doctor.ALL
KINDS = ("full", "heads", "none", "queries", "window")


def layer_of(grid, heads, dim, *, kind="none", dtype=torch.float32, images=2, spread=1.0):
    """Inputs whose queries and keys are views into one projection, as a model makes them."""
    generator = torch.Generator().manual_seed(1)
    windows = 3 if kind == "window" else 1
    shape = (images * windows, grid.tokens, 3, heads, dim)
    qkv = spread * torch.randn(shape, generator=generator)
    q, k, _ = qkv.to(dtype).permute(2, 0, 3, 1, 4)
    n = grid.tokens
    shape = {
        "full": (images, heads, n, n),
        "heads": (1, heads, n, n),
        "queries": (1, 1, 1, n),
        "window": (windows, heads, n, n),
    }.get(kind)
    bias = None
    if shape:
        bias = torch.randn(shape, generator=generator)
        far = torch.rand(shape[0], 1, shape[2], n, generator=generator) > 0.7
        far &= ~torch.eye(n, dtype=torch.bool)[: shape[2]]
        far[..., 0] = False
        bias = bias.masked_fill(far, float("-inf")).to(dtype)
    layer = LayerInfo(0, "test", heads, dim, grid)
    return AttentionInputs(layer, images, q, k, dim**-0.5, bias)


def gap(inputs, *, want=ALL, prefix="renormalised"):
    """Largest deviation of the fused kernel from float64."""
    found = fused.attention_stats(inputs, want, prefix=prefix)
    truth = reference.attention_stats(inputs, want, prefix=prefix)
    assert [x is None for x in found] == [x is None for x in truth]
    assert all(x.shape == y.shape for x, y in zip(found, truth, strict=True) if x is not None)
    assert all(x.dtype == torch.float32 for x in found if x is not None)
    return doctor.deviation(found, truth)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 7),
    prefix=st.integers(0, 5),
    heads=st.integers(1, 5),
    dim=st.sampled_from([1, 8, 20, 32, 48]),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    convention=st.sampled_from(["renormalised", "included"]),
)
def test_agrees_with_float64(rows, cols, prefix, heads, dim, kind, dtype, convention):
    windowed = kind == "window"
    grid = TokenGrid(rows, cols, (16, 8), 0 if windowed else prefix)
    grid = replace(grid, window=(rows, cols)) if windowed else grid
    assert gap(layer_of(grid, heads, dim, kind=kind, dtype=dtype), prefix=convention) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("prefix", ["renormalised", "included"])
def test_several_blocks_of_queries_keys_and_channels(dtype, prefix):
    grid = TokenGrid(10, 13, (14, 14), prefix=5)
    assert gap(layer_of(grid, 2, 80, kind="heads", dtype=dtype), prefix=prefix) < 1e-5


def test_shifted_windows():
    grid = TokenGrid(8, 8, (4, 4), window=(4, 4), shift=(2, 2))
    visible = torch.tensor(grid.visible())
    bias = torch.zeros(4, 1, 16, 16).masked_fill(~visible[:, None], float("-inf"))
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(8, 3, 16, 8, generator=generator) for _ in range(2))
    inputs = AttentionInputs(LayerInfo(0, "test", 3, 8, grid), 2, q, k, 0.5, bias)
    assert gap(inputs) < 1e-6
    table = torch.randn(1, 3, 16, 16, generator=generator) + bias
    assert gap(replace(inputs, bias=table)) < 1e-6


def test_grouped_keys_are_those_of_their_group():
    inputs = layer_of(TokenGrid(3, 4, (16, 16), prefix=1), 6, 16)
    shared = replace(inputs, k=inputs.k[:, ::3])
    repeated = replace(inputs, k=inputs.k[:, ::3].repeat_interleave(3, dim=1))
    truth = reference.attention_stats(repeated, ALL)
    assert doctor.deviation(fused.attention_stats(shared, ALL), truth) < 1e-6


def test_queries_and_keys_of_different_types():
    inputs = layer_of(TokenGrid(3, 4, (16, 16), prefix=1), 2, 16)
    assert gap(replace(inputs, k=inputs.k.to(torch.float16))) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_huge_logits_stay_finite(dtype):
    inputs = layer_of(TokenGrid(5, 5, (16, 16), prefix=1), 3, 16, dtype=dtype)
    huge = replace(inputs, scale=2500.0)
    assert (2500 * inputs.q.float() @ inputs.k.float().mT).abs().max() > 1e4
    assert all(torch.isfinite(x).all() for x in fused.attention_stats(huge, ALL))
    assert gap(huge) < 1e-3


def test_uniform_attention():
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    stats = fused.attention_stats(layer_of(grid, 2, 8, spread=0.0), ALL)
    assert stats.distance == pytest.approx(116.4925, rel=1e-5)
    assert stats.entropy == pytest.approx(math.log(196), rel=1e-6)
    assert stats.prefix_mass == pytest.approx(1 / 197, rel=1e-6)
    assert stats.kl.abs().max() == 0


def test_identity_attention():
    eye = torch.eye(16).expand(1, 2, 16, 16)
    layer = LayerInfo(0, "test", 2, 16, TokenGrid(4, 4, (16, 16)))
    stats = fused.attention_stats(AttentionInputs(layer, 1, 1e4 * eye, eye, 1.0), ALL)
    assert stats.distance.abs().max() == 0
    assert stats.entropy.abs().max() == 0


def test_equal_heads_have_no_divergence():
    inputs = layer_of(TokenGrid(5, 7, (16, 16)), 2, 16, spread=3.0)
    q, k = (x[:, :1].expand(-1, 3, -1, -1) for x in (inputs.q, inputs.k))
    kl = fused.attention_stats(replace(inputs, q=q, k=k), ALL).kl
    assert kl.shape == (2, 3, 3)
    assert kl.abs().max() == 0


def test_small_divergences_keep_their_digits_beside_a_common_component():
    # the component takes no part in any probability but is a hundred times the rest
    inputs = layer_of(TokenGrid(6, 6, (16, 16)), 4, 16, spread=0.2)
    inputs = replace(inputs, k=inputs.k + 20.0)
    kl, truth = (x.attention_stats(inputs, ALL).kl for x in (fused, reference))
    off = ~torch.eye(4, dtype=torch.bool)
    assert truth[:, off].max() < 5e-3
    assert ((kl.double() - truth).abs() / truth)[:, off].max() < 1e-4


def test_an_error_of_the_log_sum_exp_is_no_error_of_small_divergences():
    inputs = layer_of(TokenGrid(5, 6, (16, 16)), 3, 16, spread=0.3)
    call = fused._prepare(inputs, "renormalised")
    _, lse = fused._rows(call, inputs.grid, frozenset({"kl"}))
    off = 1e-3 * torch.tensor([1.0, -1.0, 0.5])[:, None]
    truth = reference.attention_stats(inputs, ALL).kl
    wrong = (fused._divergence(call, lse + off).double() - truth).abs()
    assert (wrong < 2e-3 * truth + 1e-5).all()


def test_masked_rows_are_no_nan_and_nan_logits_show():
    inputs = layer_of(TokenGrid(2, 3, (16, 16)), 2, 8, kind="heads")
    nothing = replace(inputs, bias=torch.full((1, 1, 6, 6), float("-inf")))
    assert all(torch.isfinite(x).all() for x in fused.attention_stats(nothing, ALL))
    q = inputs.q.clone()
    q[1, 1, 2, 3] = float("nan")
    stats = fused.attention_stats(replace(inputs, q=q), ALL)
    assert torch.isnan(stats.entropy).tolist() == [[False, False], [False, True]]
    assert torch.isnan(stats.kl[1, 0, 1])
    assert torch.isfinite(stats.kl[0]).all()


@pytest.mark.parametrize("want", [*sorted(ALL), ""])
def test_only_what_is_wanted(want):
    inputs = layer_of(TokenGrid(3, 3, (16, 16), prefix=2), 3, 8)
    assert gap(inputs, want=frozenset({want} & ALL)) < 1e-6


def test_without_geometry_there_is_no_distance():
    inputs = layer_of(TokenGrid(3, 3, (16, 16)), 3, 8)
    assert gap(replace(inputs, layer=replace(inputs.layer, grid=None))) < 1e-6


def test_the_interpreter_is_used_by_name_only():
    inputs = layer_of(TokenGrid(2, 2, (16, 16)), 2, 8)
    assert kernels.choose(MetricOptions(), inputs=inputs) == "blocked"
    assert kernels.choose(MetricOptions(), "fused", inputs) == "fused"
    assert kernels.attention_stats(inputs, ALL, implementation="fused").kl.shape == (2, 2, 2)


def test_a_sum_is_the_same_every_time():
    inputs = layer_of(TokenGrid(10, 7, (16, 16)), 2, 8)
    one, two = (fused.attention_stats(inputs, ALL) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


def test_doctor_checks_the_kernel(monkeypatch):
    monkeypatch.delitem(kernels.FAST, "blocked")
    found = doctor.checks("cpu")
    assert len(found) > 10
    assert all(check.passed for check in found)
