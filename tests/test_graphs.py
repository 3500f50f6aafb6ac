"""Recorded passes: replayed for batches of one shape, and only where they are right."""

import numpy as np
import pytest
import torch

import attnprobe
from attnprobe import analysis
from attnprobe.errors import AttnprobeError
from attnprobe.graphs import Graphs
from tests.test_analysis import small_model, values


class Recorder:
    """Records on the CPU as CUDA does: what runs again fills the same tensors."""

    def __init__(self, graphs_of, *, wrong=0.0):
        self.graphs_of, self.wrong, self.replays = graphs_of, wrong, 0

    def __call__(self, function):
        function()
        measurement = self.graphs_of().measurement
        kept = measurement.hold()
        measurement.restore(kept)
        measurement._features = kept.features  # the very tensors, as a graph has them

        def replay():
            self.replays += 1
            function()
            fresh = measurement.hold()
            for name, held in kept.rows.items():
                for x, y in zip(held, fresh.rows[name], strict=True):
                    x.copy_(y + self.wrong)
            for name, x in kept.features.items():
                x.copy_(fresh.features[name])

        return replay


@pytest.fixture
def recorded(monkeypatch):
    """Let graphs be used on the CPU, by a recorder that a test can look at."""
    made = []

    def use(**options):
        def graphs(measurement, record):
            found = Graphs(measurement, Recorder(lambda: found, **options))
            made.append(found)
            return found

        monkeypatch.setattr(analysis, "Graphs", graphs)
        monkeypatch.setattr(analysis, "device_of", lambda config: torch.device("cpu"))
        return made

    return use


@pytest.fixture(scope="module")
def images():
    return torch.randn(22, 3, 160, 160, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plain(images):
    return attnprobe.analyze(small_model(), images, batch_size=5, maps=1, cka_batch=10)


def test_replays_measure_what_passes_measure(recorded, images, plain):
    made = recorded()
    again = attnprobe.analyze(
        small_model(), images, batch_size=5, maps=1, cka_batch=10, graphs=True
    )
    # five batches: one with maps, one recorded and checked, two replayed, a short one
    assert made[0].record.replays == 3
    for table in ("distance", "entropy", "head_kl", "prefix_mass", "cka"):
        np.testing.assert_allclose(values(again, table), values(plain, table), atol=1e-5)
    assert len(again.layers) == len(plain.layers)
    assert again.provenance.kernel == "blocked"


def test_a_recording_that_is_wrong_is_not_used(recorded, images, plain):
    made = recorded(wrong=0.5)
    with pytest.warns(UserWarning, match="other values than the pass"):
        again = attnprobe.analyze(
            small_model(), images, batch_size=5, maps=1, cka_batch=10, graphs=True
        )
    assert not made[0].usable
    np.testing.assert_allclose(values(again, "entropy"), values(plain, "entropy"), atol=1e-6)


def test_what_cannot_be_recorded_is_measured_all_the_same(recorded, images, plain, monkeypatch):
    made = recorded()

    def fail(self, function):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorder, "__call__", fail)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing"):
        again = attnprobe.analyze(
            small_model(), images, batch_size=5, maps=1, cka_batch=10, graphs=True
        )
    assert made
    np.testing.assert_allclose(values(again, "head_kl"), values(plain, "head_kl"), atol=1e-6)


def test_without_a_device_they_are_refused(images):
    with pytest.raises(AttnprobeError, match="CUDA graphs need a CUDA device"):
        attnprobe.analyze(small_model(), images, device="cpu", graphs=True)
