"""The fused kernel under Triton's interpreter, run by test_fused.py in a process of its own."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprobe import doctor, kernels
from attnprobe.kernels import _together, fused, reference
from attnprobe.kernels._call import prepare
from attnprobe.tensors import AttentionInputs
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

# isort: split
import _common
import bench_kernels

ALL = doctor.ALL
both = pytest.mark.parametrize("variant", ["pairs", "together"])
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


def gap(inputs, *, want=ALL, prefix="renormalised", variant="auto"):
    """Largest deviation of the fused kernel from float64."""
    found = fused.attention_stats(inputs, want, prefix=prefix, variant=variant)
    truth = reference.attention_stats(inputs, want, prefix=prefix)
    assert [x is None for x in found] == [x is None for x in truth]
    assert all(x.shape == y.shape for x, y in zip(found, truth, strict=True) if x is not None)
    assert all(x.dtype == torch.float32 for x in found if x is not None)
    return doctor.deviation(found, truth)


@both
@settings(max_examples=3, deadline=None)
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
def test_agrees_with_float64(variant, rows, cols, prefix, heads, dim, kind, dtype, convention):
    if variant == "together":
        heads += 2
    windowed = kind == "window"
    grid = TokenGrid(rows, cols, (16, 8), 0 if windowed else prefix)
    grid = replace(grid, window=(rows, cols)) if windowed else grid
    inputs = layer_of(grid, heads, dim, kind=kind, dtype=dtype)
    assert gap(inputs, prefix=convention, variant=variant) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("prefix", ["renormalised", "included"])
def test_several_blocks_of_queries_keys_and_channels(dtype, prefix):
    grid = TokenGrid(9, 8, (14, 14), prefix=5)
    assert gap(layer_of(grid, 2, 80, kind="heads", dtype=dtype), prefix=prefix) < 1e-5


@pytest.mark.parametrize(
    ("heads", "dim", "dtype"),
    [
        (3, 80, torch.float16),
        (6, 48, torch.float32),
        (12, 80, torch.float16),
        (16, 40, torch.float32),
        (24, 20, torch.float16),
    ],
)
@pytest.mark.parametrize("prefix", ["renormalised", "included"])
def test_several_blocks_of_all_heads(heads, dim, dtype, prefix):
    inputs = layer_of(TokenGrid(5, 7, (14, 14), prefix=5), heads, dim, kind="heads", dtype=dtype)
    assert gap(inputs, prefix=prefix, variant="together") < 1e-5


@both
def test_shifted_windows(variant):
    grid = TokenGrid(8, 8, (4, 4), window=(4, 4), shift=(2, 2))
    visible = torch.tensor(grid.visible())
    bias = torch.zeros(4, 1, 16, 16).masked_fill(~visible[:, None], float("-inf"))
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(8, 3, 16, 8, generator=generator) for _ in range(2))
    inputs = AttentionInputs(LayerInfo(0, "test", 3, 8, grid), 2, q, k, 0.5, bias)
    assert gap(inputs, variant=variant) < 1e-6
    table = torch.randn(1, 3, 16, 16, generator=generator) + bias
    assert gap(replace(inputs, bias=table), variant=variant) < 1e-6


@both
def test_grouped_keys_are_those_of_their_group(variant):
    inputs = layer_of(TokenGrid(3, 4, (16, 16), prefix=1), 6, 16)
    shared = replace(inputs, k=inputs.k[:, ::3])
    repeated = replace(inputs, k=inputs.k[:, ::3].repeat_interleave(3, dim=1))
    truth = reference.attention_stats(repeated, ALL)
    assert doctor.deviation(reference.attention_stats(shared, ALL), truth) == 0
    assert gap(shared, variant=variant) < 1e-6


@both
def test_queries_and_keys_of_different_types(variant):
    inputs = layer_of(TokenGrid(3, 4, (16, 16), prefix=1), 3, 16)
    assert gap(replace(inputs, k=inputs.k.to(torch.float16)), variant=variant) < 1e-6


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_huge_logits_stay_finite(variant, dtype):
    inputs = layer_of(TokenGrid(5, 5, (16, 16), prefix=1), 3, 16, dtype=dtype)
    huge = replace(inputs, scale=2500.0)
    assert (2500 * inputs.q.float() @ inputs.k.float().mT).abs().max() > 1e4
    found = fused.attention_stats(huge, ALL, variant=variant)
    assert all(torch.isfinite(x).all() for x in found)
    assert gap(huge, variant=variant) < 1e-3


def test_uniform_attention_of_all_heads():  # the doctor checks that of pairs
    inputs = layer_of(TokenGrid(14, 14, (16, 16), prefix=1), 3, 8, spread=0.0, images=1)
    stats = fused.attention_stats(inputs, ALL, variant="together")
    assert stats.distance == pytest.approx(116.4925, rel=1e-5)
    assert stats.entropy == pytest.approx(math.log(196), rel=1e-6)
    assert stats.prefix_mass == pytest.approx(1 / 197, rel=1e-6)
    assert stats.kl.abs().max() == 0


@both
def test_identity_attention(variant):
    eye = torch.eye(16).expand(1, 3, 16, 16)
    layer = LayerInfo(0, "test", 3, 16, TokenGrid(4, 4, (16, 16)))
    inputs = AttentionInputs(layer, 1, 1e4 * eye, eye, 1.0)
    stats = fused.attention_stats(inputs, ALL, variant=variant)
    assert stats.distance.abs().max() == 0
    assert stats.entropy.abs().max() == 0


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_equal_heads_have_no_divergence(variant, dtype):
    inputs = layer_of(TokenGrid(5, 7, (16, 16)), 2, 16, spread=3.0, dtype=dtype)
    q, k = (x[:, :1].expand(-1, 3, -1, -1) for x in (inputs.q, inputs.k))
    kl = fused.attention_stats(replace(inputs, q=q, k=k), ALL, variant=variant).kl
    assert kl.shape == (2, 3, 3)
    assert kl.abs().max() == 0


@both
def test_small_divergences_keep_their_digits_beside_a_common_component(variant):
    # the component takes no part in any probability but is a hundred times the rest
    inputs = layer_of(TokenGrid(6, 6, (16, 16)), 4, 16, spread=0.2)
    inputs = replace(inputs, k=inputs.k + 20.0)
    kl = fused.attention_stats(inputs, ALL, variant=variant).kl
    truth = reference.attention_stats(inputs, ALL).kl
    off = ~torch.eye(4, dtype=torch.bool)
    assert truth[:, off].max() < 5e-3
    assert ((kl.double() - truth).abs() / truth)[:, off].max() < 1e-4


def test_an_error_of_the_log_sum_exp_is_no_error_of_small_divergences():
    inputs = layer_of(TokenGrid(5, 6, (16, 16)), 3, 16, spread=0.3)
    call = prepare(inputs, "renormalised")
    _, lse = fused._rows(call, inputs.grid, frozenset({"kl"}))
    off = 1e-3 * torch.tensor([1.0, -1.0, 0.5])[:, None]
    truth = reference.attention_stats(inputs, ALL).kl
    wrong = (fused._divergence(call, lse + off).double() - truth).abs()
    assert (wrong < 2e-3 * truth + 1e-5).all()


@both
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # the interpreter's, of a row's maximum
def test_masked_rows_are_no_nan_and_nan_logits_show(variant):
    inputs = layer_of(TokenGrid(2, 3, (16, 16)), 3, 8, kind="heads")
    nothing = replace(inputs, bias=torch.full((1, 1, 6, 6), float("-inf")))
    found = fused.attention_stats(nothing, ALL, variant=variant)
    assert all(torch.isfinite(x).all() for x in found)
    q = inputs.q.clone()
    q[1, 1, 2, 3] = float("nan")
    stats = fused.attention_stats(replace(inputs, q=q), ALL, variant=variant)
    assert torch.isnan(stats.entropy).tolist() == [[False] * 3, [False, True, False]]
    assert torch.isnan(stats.kl[1, 0, 1])
    assert torch.isfinite(stats.kl[1, 0, 2])
    assert torch.isfinite(stats.kl[0]).all()


@both
@pytest.mark.parametrize("want", [*sorted(ALL), ""])
def test_only_what_is_wanted(variant, want):
    inputs = layer_of(TokenGrid(3, 3, (16, 16), prefix=2), 3, 8)
    assert gap(inputs, want=frozenset({want} & ALL), variant=variant) < 1e-6


@both
def test_without_geometry_there_is_no_distance(variant):
    inputs = layer_of(TokenGrid(3, 3, (16, 16)), 3, 8)
    inputs = replace(inputs, layer=replace(inputs.layer, grid=None))
    assert gap(inputs, variant=variant) < 1e-6


def test_the_interpreter_is_used_by_name_only():
    inputs = layer_of(TokenGrid(2, 2, (16, 16)), 2, 8)
    assert kernels.choose(MetricOptions(), inputs=inputs) == "blocked"
    assert kernels.choose(MetricOptions(), "fused", inputs) == "fused"
    assert kernels.attention_stats(inputs, ALL, implementation="fused").kl.shape == (2, 2, 2)


@both
def test_a_sum_is_the_same_every_time(variant):
    inputs = layer_of(TokenGrid(10, 7, (16, 16)), 3, 8, images=1)
    one, two = (fused.attention_stats(inputs, ALL, variant=variant) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "none"), (torch.float16, "heads")])
def test_the_trial_tells_agreement_from_a_wrong_answer(monkeypatch, dtype, kind):
    inputs = layer_of(TokenGrid(3, 3, (16, 16), prefix=1), 4, 24, dtype=dtype, kind=kind)
    trial = _together.trial(inputs)
    assert _together.key(trial) == _together.key(inputs)
    assert fused._trial(trial) == ""
    monkeypatch.setattr(_together, "TOLERANCE", 0.0)
    assert "another" in fused._trial(trial)


def test_the_benchmark_times_only_what_agrees(monkeypatch):
    settings, (case,) = _common.Settings(size="toy"), bench_kernels.CASES["toy"]
    quick = {bench_kernels.QUANTITY: 2.0}
    monkeypatch.setattr(bench_kernels, "timer", lambda way, settings: lambda: (way(), quick)[1])
    inputs = bench_kernels.layer(case, torch.float32, "cpu")
    rows = bench_kernels.measured(case, inputs, settings)
    assert {row["provider"] for row in rows} == {
        bench_kernels.ATTENTION,
        bench_kernels.ROWS,
        bench_kernels.BLOCKED,
        *bench_kernels.VARIANTS.values(),
    }
    assert all((row["value"], row["ratio"], row["unit"]) == (2.0, 1.0, "ms") for row in rows)
    monkeypatch.setattr(bench_kernels, "TOLERANCE", 0.0)
    with pytest.raises(click.ClickException, match="nothing was timed"):
        bench_kernels.measured(case, inputs, settings)


def test_doctor_checks_the_kernel(monkeypatch):
    monkeypatch.delitem(kernels.FAST, "blocked")
    found = doctor.checks("cpu")
    assert len(found) > 10
    assert all(check.passed for check in found)


@pytest.mark.parametrize("variant", ["pairs", "together"])
@pytest.mark.parametrize("step", [3, 7, 50])
def test_some_queries_are_measured_as_if_there_were_no_others(variant, step):
    generator = torch.Generator().manual_seed(step)
    grid = TokenGrid(5, 4, (16, 8), prefix=2)
    q, k = (torch.randn(2, 3, grid.tokens, 16, generator=generator) for _ in "qk")
    bias = torch.randn(1, 3, grid.tokens, grid.tokens, generator=generator)
    layer = LayerInfo(0, "test", 3, 16, grid)
    inputs = AttentionInputs(layer, 2, q, k, 0.3, bias, step)
    found = fused.attention_stats(inputs, ALL, variant=variant)
    assert doctor.deviation(found, reference.attention_stats(inputs, ALL)) < 1e-5
