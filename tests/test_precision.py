"""Smaller types: what they change is measured, and never exceeds the tolerance unasked."""

import numpy as np
import pytest
import torch

import attnprobe
from attnprobe import precision
from attnprobe.errors import AttnprobeError
from attnprobe.measuring import Batch, Measurement
from attnprobe.precision import Precision, candidates, checked, deviation
from attnprobe.types import MetricOptions
from tests.test_analysis import small_model, values

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return torch.randn(40, 3, 160, 160, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return small_model()


def metrics_of(*names):
    return Measurement.start(names, MetricOptions(), "auto").metrics


def test_the_deviation_is_the_worst_over_layers_and_heads():
    rows = np.array([[1.0, 2.0], [3.0, 2.0]])  # means 2 and 2
    full = Batch(rows={"entropy|0": rows, "entropy|1": rows})
    low = Batch(rows={"entropy|0": rows, "entropy|1": rows * [1.01, 0.97]})
    assert deviation(full, low, metrics_of("entropy"), MetricOptions()) == {"entropy": 0.03}


def test_differences_that_fp32_shows_itself_are_none():
    full = Batch(rows={"head_kl|0": np.array([[0.0, 1e-7]])})
    low = Batch(rows={"head_kl|0": np.array([[5e-7, 0.0]])})
    assert deviation(full, low, metrics_of("head_kl"), MetricOptions()) == {"head_kl": 0.0}


def test_a_smaller_type_states_what_it_changed(model, images):
    full = attnprobe.analyze(model, images[:12], precision="fp32")
    assert full.provenance.deviation == {}
    half = attnprobe.analyze(model, images[:12], precision="bf16")
    assert half.provenance.precision == "bfloat16"
    told = half.provenance.deviation
    assert set(told) == {"distance", "entropy", "head_kl", "prefix_mass", "cka"}
    first = attnprobe.analyze(model, images[:8], precision="fp32")
    low = attnprobe.analyze(model, images[:8], precision="bf16")
    apart = np.abs(values(low) - values(first)) / values(first)
    assert told["distance"] == pytest.approx(apart.max(), rel=0.06)


@pytest.mark.parametrize("limit", [0.0, 1e9])
def test_auto_takes_a_smaller_type_only_within_the_tolerance(model, images, monkeypatch, limit):
    monkeypatch.setattr(precision, "TOLERANCE", limit)
    monkeypatch.setattr(precision, "PAYS", 40)
    monkeypatch.setattr(precision, "fast_bf16", lambda: True)
    facts = attnprobe.analyze(model, images, ["entropy"]).provenance
    assert facts.precision == ("bfloat16" if limit else "float32")
    assert bool(facts.deviation) is bool(limit)


def test_auto_does_not_try_where_it_does_not_pay(monkeypatch):
    monkeypatch.setattr(precision, "fast_bf16", lambda: True)
    assert candidates("auto", CPU, precision.PAYS, 8) == (Precision("bf16"),)
    assert candidates("auto", CPU, precision.PAYS - 1, 8) == ()
    assert candidates("fp32", CPU, 10_000, 8) == ()
    monkeypatch.setattr(precision, "fast_bf16", lambda: False)
    assert candidates("auto", CPU, 10_000, 8) == ()


@pytest.mark.parametrize(("name", "words"), [("int8", "unknown"), ("tf32", "CUDA devices")])
def test_what_a_device_has_not_is_refused(name, words):
    with pytest.raises(AttnprobeError, match=words):
        checked(name, CPU)
