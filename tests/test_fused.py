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
from attnprobe.kernels import _launching, _together, fused
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


@pytest.mark.slow
@with_triton
def test_the_interpreted_kernel():
    said = python(
        *("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/fused_interpreted.py"),
        TRITON_INTERPRET="1",
    )
    assert "passed" in said
    assert "skipped" not in said


@pytest.mark.slow
@with_triton
def test_the_kernel_compiles_to_machine_code(tmp_path):
    cases = ("--case", "ViT-B", "--case", "Swin-T", "--dtype", "fp32", "--dtype", "bf16")
    said = python(
        *("benchmarks/compile_kernels.py", "--capability", "90", *cases),
        TRITON_CACHE_DIR=str(tmp_path),
    )
    names, *rows = (line.split("\t") for line in said.splitlines())
    assert len(rows) == 12
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
def test_heads_that_cannot_be_taken_together_are_told_why(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    half, registers = torch.bfloat16, TokenGrid(2, 2, (16, 16), prefix=17)
    for inputs, reason in (
        (doctor.example(GRID, 3, 8), ""),
        (doctor.example(GRID, 32, 8, dtype=half), ""),
        (doctor.example(GRID, 2, 8), "2 heads are taken by pairs"),
        (doctor.example(GRID, 17, 8), "at most 16 heads of these types"),
        (doctor.example(GRID, 33, 8, dtype=half), "at most 32 heads"),
        (doctor.example(registers, 3, 8), "at most 16 prefix tokens"),
    ):
        assert fused.pairs_because(inputs).startswith(reason)
        assert bool(fused.pairs_because(inputs)) == bool(reason)
    with pytest.raises(AttnprobeError, match="by pairs") as caught:
        fused.attention_stats(doctor.example(GRID, 2, 8), doctor.ALL, variant="together")
    assert "variant" in caught.value.remedy
    with pytest.raises(AttnprobeError, match="unknown variant 'all'"):
        fused.attention_stats(doctor.example(GRID, 3, 8), doctor.ALL, variant="all")


@with_triton
def test_an_old_triton_takes_heads_by_pairs(monkeypatch):
    monkeypatch.setattr(_together, "release", lambda: (3, 2))
    assert "before 3.3" in fused.pairs_because(doctor.example(GRID, 3, 8))


@pytest.fixture
def on_a_card(monkeypatch):
    """A machine that seems to have a card on which nothing was tried yet; notes what is run."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(_launching, "_device_limits", lambda device: "")
    monkeypatch.setattr(fused, "_DISTRUSTED", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    kl = torch.ones(2, 3, 3)
    monkeypatch.setattr(fused, "_rows", lambda call, grid, want: (AttentionStats(), None))
    monkeypatch.setattr(fused, "_divergence", lambda call, lse: kl)
    monkeypatch.setattr(_together, "run", lambda call, grid, want: AttentionStats(kl=2 * kl))


def run_on(inputs):
    return float(fused.attention_stats(inputs, frozenset({"kl"})).kl.max())


@with_triton
def test_a_wrong_answer_is_not_asked_for_again(on_a_card, monkeypatch):
    inputs = doctor.example(GRID, 3, 8)
    assert run_on(inputs) == 1
    assert "another kl (off by 1.0e+00" in fused.pairs_because(inputs)
    right = AttentionStats(kl=torch.full((2, 3, 3), 1.00001))
    monkeypatch.setattr(_together, "run", lambda call, grid, want: right)
    assert run_on(inputs) == 1
    assert run_on(doctor.example(GRID, 3, 16)) == pytest.approx(1.00001)  # of another kind


@with_triton
def test_a_program_that_is_not_built_leaves_pairs(on_a_card, monkeypatch):
    def run(call, grid, want):
        raise AttnprobeError("out of shared memory", "choose pairs")

    inputs = doctor.example(GRID, 3, 8)
    monkeypatch.setattr(_together, "run", run)
    assert run_on(inputs) == 1
    assert fused.pairs_because(inputs) == "out of shared memory"
    fused._DISTRUSTED[_together.key(inputs)] = ""  # a trial that it passed helps it as little
    assert run_on(inputs) == 1
    assert fused.pairs_because(inputs) == "out of shared memory"
    with pytest.raises(AttnprobeError, match="shared memory"):
        fused.attention_stats(inputs, doctor.ALL, variant="together")


@with_triton
def test_nothing_is_tried_within_a_graph(on_a_card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    inputs = doctor.example(GRID, 3, 8)
    assert run_on(inputs) == 1
    assert "captured" in fused.pairs_because(inputs)
    fused._DISTRUSTED[_together.key(inputs)] = ""
    assert run_on(inputs) == 2


@with_triton
def test_a_program_that_does_not_start_is_an_error_with_a_way_out(monkeypatch):
    def program(*arguments, **options):
        raise RuntimeError("Failed to find C compiler.\nmore")

    with pytest.raises(AttnprobeError, match="Failed to find C compiler") as caught:
        _launching.launch({(1,): program}, 1, ())
    assert "blocked" in caught.value.remedy
    assert "more" not in caught.value.cause


def test_a_nan_is_no_small_deviation():
    bad = AttentionStats(entropy=torch.tensor([float("nan"), 1.0]))
    assert doctor.deviation(bad, AttentionStats(entropy=torch.ones(2))) == float("inf")
