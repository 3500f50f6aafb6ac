"""The same numbers on a CUDA device, with real sizes."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from training_runs import config, npz, tensors

import attnprobe
from attnprobe import doctor, kernels
from attnprobe.kernels import fused, reference
from attnprobe.training.engine import train
from attnprobe.types import MetricOptions, TokenGrid

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_doctor_is_content_with_the_device():
    assert [check for check in doctor.checks("cuda") if not check.passed] == []


both = pytest.mark.parametrize("variant", ["pairs", "together"])


def deviation(inputs, prefix="renormalised", variant="auto"):
    found = fused.attention_stats(inputs, doctor.ALL, prefix=prefix, variant=variant)
    return doctor.deviation(found, reference.attention_stats(inputs, doctor.ALL, prefix=prefix))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("grid", "heads", "dim"),
    [
        (TokenGrid(1, 1, (16, 16)), 2, 64),
        (TokenGrid(14, 14, (16, 16), prefix=1), 12, 64),
        (TokenGrid(14, 14, (16, 16), prefix=1), 3, 32),
        (TokenGrid(16, 16, (14, 14), prefix=5), 16, 80),
        (TokenGrid(16, 16, (14, 14), prefix=5), 32, 128),
        (TokenGrid(37, 37, (14, 14), prefix=1), 2, 64),
        (TokenGrid(64, 64, (16, 16), prefix=1), 2, 32),
        (TokenGrid(64, 64, (16, 16), prefix=1), 1, 128),
    ],
)
def test_fused_agrees_with_float64(grid, heads, dim, dtype):
    inputs = doctor.example(grid, heads, dim, device="cuda", dtype=dtype)
    for prefix in ("renormalised", "included"):
        assert deviation(inputs, prefix) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [3, 4, 6, 8, 12, 16, 24, 32])
@pytest.mark.parametrize("dim", [20, 64, 80, 128])
def test_all_heads_together_agree_with_float64(heads, dim, dtype):
    if dtype == torch.float32 and heads > 16:
        pytest.skip("they do not fit")
    grid = TokenGrid(14, 14, (16, 16), prefix=5)
    inputs = doctor.example(grid, heads, dim, device="cuda", dtype=dtype)
    assert fused.pairs_because(inputs) == ""
    for prefix in ("renormalised", "included"):
        assert deviation(inputs, prefix, "together") < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_tokens_of_all_heads_agree_with_float64(dtype):
    grid = TokenGrid(48, 48, (16, 16), prefix=1)
    inputs = doctor.example(grid, 3, 64, device="cuda", dtype=dtype)
    assert deviation(inputs, variant="together") < 1e-5


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("windows", [4, 64])
def test_fused_windows(variant, dtype, windows):
    grid = TokenGrid(56, 56, (4, 4), window=(7, 7), shift=(3, 3))
    inputs = doctor.example(grid, 4, 32, windows=windows, device="cuda", dtype=dtype)
    assert deviation(inputs, variant=variant) < 1e-5


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fused_at_the_extremes(variant, dtype):
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    inputs = doctor.example(grid, 3, 64, device="cuda", dtype=dtype)
    huge = replace(inputs, scale=1e3)
    assert deviation(huge, variant=variant) < 1e-3
    alike = replace(inputs, q=inputs.q[:, :1].expand(-1, 3, -1, -1))
    alike = replace(alike, k=inputs.k[:, :1].expand(-1, 3, -1, -1))
    assert fused.attention_stats(alike, doctor.ALL, variant=variant).kl.abs().max() == 0


@both
def test_small_divergences_keep_their_digits_on_the_device(variant):
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    inputs = doctor.example(grid, 4, 64, spread=0.2, device="cuda")
    found = fused.attention_stats(inputs, doctor.ALL, variant=variant).kl
    truth = reference.attention_stats(inputs, doctor.ALL).kl
    off = ~torch.eye(4, dtype=torch.bool, device="cuda")
    assert ((found.double() - truth).abs() / truth)[:, off].max() < 2e-4


def test_fused_is_chosen_for_the_device():
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    there, here = (doctor.example(grid, 3, 64, device=device) for device in ("cuda", "cpu"))
    assert kernels.choose(MetricOptions(), inputs=there) == "fused"
    assert kernels.choose(MetricOptions(), inputs=here) == "blocked"
    assert fused.pairs_because(there) == ""
    wide = doctor.example(grid, 2, 160, device="cuda")
    assert kernels.choose(MetricOptions(), inputs=wide) == "blocked"


def test_memory_of_the_fused_kernel_is_linear_in_the_tokens():
    taken = []
    for side in (32, 64):
        grid = TokenGrid(side, side, (16, 16), prefix=1)
        inputs = doctor.example(grid, 12, 64, device="cuda", dtype=torch.bfloat16)
        fused.attention_stats(inputs, doctor.ALL)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fused.attention_stats(inputs, doctor.ALL)
        torch.cuda.synchronize()
        taken.append(torch.cuda.max_memory_allocated() - before)
    assert taken[1] < 5 * taken[0]
    assert taken[1] < 32 * 2**20  # one matrix of 4096 x 4096 takes twice that


@pytest.mark.parametrize("heads", [2, 6])
def test_the_fused_kernel_waits_for_nothing_and_repeats_in_a_graph(heads):
    grid = TokenGrid(14, 14, (16, 16), prefix=1)
    inputs = doctor.example(grid, heads, 64, device="cuda")
    eager = fused.attention_stats(inputs, doctor.ALL)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fused.attention_stats(inputs, doctor.ALL)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = fused.attention_stats(inputs, doctor.ALL)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(eager, captured, strict=True))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_tables_agree_with_the_processor(name, precision):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    images = torch.randn(8, 3, 224, 224)
    there = attnprobe.analyze(model, images, device="cuda", precision=precision)
    here = attnprobe.analyze(model, images, device="cpu")
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    for table in ("distance", "entropy"):
        found, truth = (result.tables[table]["value"] for result in (there, here))
        np.testing.assert_allclose(found, truth, rtol=tolerance)
    assert there.provenance.device != "cpu"


@pytest.mark.parametrize("objective", ["simmim", "mae", "mocov3", "supervised"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_resumes_where_it_was_killed(tmp_path, objective, precision):
    data = npz(tmp_path / "train.npz")
    values = {"device": "cuda", "precision": precision, "deterministic": True, "save_every": 2}
    plan = config(objective, data, **values)
    train(plan, tmp_path / "whole")

    def stop(update):
        if update.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "cut", listener=stop)
    train(plan, tmp_path / "cut", resume=True)  # the gradient scaler of fp16 included
    one, two = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_agrees_with_the_processor(tmp_path):
    data = npz(tmp_path / "train.npz")
    for device in ("cpu", "cuda"):
        values = {"device": device, "opt": "sgd", "lr": 0.05, "epochs": 1}
        train(config("simmim", data, **values), tmp_path / device)
    one, two = tensors(tmp_path / "cpu"), tensors(tmp_path / "cuda")
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
