"""The fused kernel without a graphics card: interpreted, compiled, and refused."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from attnprobe import doctor, kernels
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import fused
from attnprobe.tensors import AttentionStats
from attnprobe.types import MetricOptions, TokenGrid

ROOT = Path(__file__).resolve().parent.parent
GRID = TokenGrid(2, 2, (16, 16))
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def python(*arguments, **environment):
    """A new process: whether Triton interprets is settled when it is first imported."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@with_triton
def test_the_interpreted_kernel():
    said = python(
        *("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/fused_interpreted.py"),
        TRITON_INTERPRET="1",
    )
    assert "passed" in said
    assert "skipped" not in said


@with_triton
def test_the_kernel_compiles_to_machine_code(tmp_path):
    cases = ("--case", "ViT-B", "--case", "Swin-T", "--dtype", "fp32", "--dtype", "bf16")
    said = python(
        *("benchmarks/compile_kernels.py", "--capability", "90", *cases),
        TRITON_CACHE_DIR=str(tmp_path),
    )
    names, *rows = (line.split("\t") for line in said.splitlines())
    assert len(rows) == 8
    for row in rows:
        found = dict(zip(names, row, strict=True))
        assert int(found["shared"]) <= 99 << 10
        assert int(found["spilled"]) <= 64
        assert int(found["products"]) > 0, "the tensor cores are idle"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device can run it")
@pytest.mark.parametrize("inputs", [None, doctor.example(GRID, 2, 8)])
def test_a_machine_without_a_card_is_told_so(monkeypatch, inputs):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(AttnprobeError, match=r"triton|graphics card"):
        kernels.choose(MetricOptions(), "fused", inputs)
    with pytest.raises(AttnprobeError, match=r"triton|graphics card"):
        fused.attention_stats(doctor.example(GRID, 2, 8), doctor.ALL)


@with_triton
def test_layers_beyond_the_limits_are_named(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    options, plain = MetricOptions(), doctor.example(GRID, 6, 8)
    wide = doctor.example(GRID, 2, 160)
    many = doctor.example(TokenGrid(2, 2, (16, 16), prefix=65), 2, 8)
    for inputs, reason in (
        (wide, "128 channels a head, and the layer has 160"),
        (many, "64 prefix tokens"),
        (replace(plain, k=plain.k[:, :4]), "6 query heads cannot share 4"),
        (replace(plain, q=plain.q.double()), "torch.float64"),
    ):
        with pytest.raises(AttnprobeError, match=reason):
            kernels.choose(options, "fused", inputs)
    assert kernels.choose(options, "fused", plain) == "fused"


@pytest.mark.parametrize("options", [{"prefix": "excluded"}, {"divergence": "js"}])
def test_conventions_it_lacks(options):
    with pytest.raises(AttnprobeError, match="the fused kernel has no"):
        kernels.choose(MetricOptions(**options), "fused")


@with_triton
def test_a_program_that_does_not_start_is_an_error_with_a_way_out(monkeypatch):
    from attnprobe.kernels import _launching

    def program(*arguments, **options):
        raise RuntimeError("Failed to find C compiler.\nmore")

    with pytest.raises(AttnprobeError, match="Failed to find C compiler") as caught:
        _launching.launch({(1,): program}, 1, ())
    assert "blocked" in caught.value.remedy
    assert "more" not in caught.value.cause


def test_a_nan_is_no_small_deviation():
    bad = AttentionStats(entropy=torch.tensor([float("nan"), 1.0]))
    assert doctor.deviation(bad, AttentionStats(entropy=torch.ones(2))) == float("inf")
