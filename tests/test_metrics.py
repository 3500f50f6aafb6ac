"""Every metric has an oracle here that shares no code with it; a missing one fails."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprobe import doctor, metrics, statistics
from attnprobe.errors import AttnprobeError
from attnprobe.gathering import Gathered
from attnprobe.hsic import hsic
from attnprobe.kernels import blocked
from attnprobe.measuring import Measurement
from attnprobe.metrics import cka as cka_module
from attnprobe.metrics.cka import biased_hsic, grams
from attnprobe.metrics.distance import scale, uniform
from attnprobe.readout import group_samples
from attnprobe.tensors import AttentionStats, Features
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

GRID = TokenGrid(14, 14, (16, 16), prefix=1)
LAYER = LayerInfo(0, "test", 2, 64, GRID)


def layer_at(index):
    return LayerInfo(index, f"blocks.{index}", 2, 64, GRID)


def feed(x, batch, **options):
    """Return CKA samples of features [layers, n, channels], given as single-token blocks."""
    measured = Measurement.start(("cka",), MetricOptions(**options), "auto")
    gathered = Gathered(measured.metrics, measured.options, x.shape[1])
    for start in range(0, x.shape[1], batch):
        for index, layer in enumerate(x[:, start : start + batch]):
            tokens = torch.cat([torch.zeros_like(layer)[:, None], layer[:, None]], 1)
            measured.on_features(Features(layer_at(index), len(layer), tokens))
        layers = [layer_at(index) for index in range(len(x))]
        numbers = range(start, min(start + batch, x.shape[1]))
        blank = np.zeros((len(numbers), 32), np.uint8)
        gathered.add_batch(measured.take(layers), numbers, blank, {})
    return group_samples(measured.metrics[0], gathered.finish())


def hsic1(k, m):
    """Song et al. 2012, eq. 5, as printed."""
    n = len(k)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(len(k))
    first = np.trace(k @ m)
    second = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (one @ k @ m @ one)
    return (first + second - third) / (n * (n - 3))


def oracle_distance():
    pixels = metrics.load("distance").uniform(GRID, MetricOptions())
    y, x = np.divmod(np.arange(196), 14)
    pairs = [math.hypot(a - b, c - d) for a, c in zip(y, x) for b, d in zip(y, x)]  # noqa: B905
    assert pixels == pytest.approx(16 * np.mean(pairs), rel=1e-6)


def oracle_entropy():
    assert metrics.load("entropy").uniform(GRID, MetricOptions()) == pytest.approx(math.log(196))
    bits = MetricOptions(entropy_unit="bits")
    stats = AttentionStats(entropy=torch.full((1, 2), math.log(8.0)))
    value = metrics.load("entropy").measure(stats, LAYER, bits)
    torch.testing.assert_close(value, torch.full((1, 2), 3.0))


def oracle_head_kl():
    stats = AttentionStats(kl=torch.tensor([[[0.0, 1.0], [3.0, 0.0]]]))
    measure = metrics.load("head_kl").measure
    assert measure(stats, LAYER, MetricOptions()) is stats.kl
    symmetric = measure(stats, LAYER, MetricOptions(divergence="symmetric"))
    torch.testing.assert_close(symmetric, torch.tensor([[[0.0, 2.0], [2.0, 0.0]]]))


def oracle_prefix_mass():
    assert metrics.load("prefix_mass").uniform(GRID, MetricOptions()) == pytest.approx(1 / 197)
    swin = LayerInfo(0, "swin", 2, 32, TokenGrid(7, 7, (32, 32)))
    assert metrics.load("prefix_mass").measure(AttentionStats(), swin, MetricOptions()) is None


def oracle_cka():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 20, 5, generator=generator).double()
    x[2] = x[0] @ torch.linalg.qr(torch.randn(5, 5, generator=generator).double())[0] * 7
    value = statistics.cka(feed(x, 20).mean(0))
    k = [(layer @ layer.T).numpy() for layer in x]
    expected = hsic1(k[0], k[1]) / math.sqrt(hsic1(k[0], k[0]) * hsic1(k[1], k[1]))
    assert value[0, 1] == pytest.approx(expected, rel=1e-6)
    assert value[0, 2] == pytest.approx(1.0)


ORACLES = {
    "distance": oracle_distance,
    "entropy": oracle_entropy,
    "head_kl": oracle_head_kl,
    "prefix_mass": oracle_prefix_mass,
    "cka": oracle_cka,
}


@pytest.mark.parametrize("name", metrics.names())
def test_metric_against_its_oracle(name):
    assert name in ORACLES, f"add an oracle for {name}: code that shares nothing with the metric"
    ORACLES[name]()


@pytest.mark.parametrize("name", metrics.names())
def test_definitions_carry_a_version(name):
    metric = metrics.load(name)
    assert metric.name == name
    assert metric.definition(MetricOptions()).endswith(f"v{metric.version}")


@pytest.mark.parametrize(
    ("unit", "published"), [("tokens", 7.28), ("px", 116.5), ("grid", 101.9), ("unit", 0.560)]
)
def test_four_published_conventions(unit, published):
    value = uniform(GRID, MetricOptions(distance_unit=unit))
    assert value == pytest.approx(published, abs=0.06 if published > 1 else 6e-4)


@pytest.mark.parametrize("name", ["distance", "entropy"])
def test_uniform_value_is_what_flat_logits_measure(name):
    grid = TokenGrid(8, 12, (4, 4), window=(4, 4), shift=(2, 1))
    inputs = doctor.example(grid, 2, 8, windows=6, spread=0.0)
    mask = torch.zeros(6, 1, 16, 16).masked_fill(
        ~torch.from_numpy(grid.visible()).unsqueeze(1), float("-inf")
    )
    stats = blocked.attention_stats(replace(inputs, bias=mask), doctor.ALL)
    expected = metrics.load(name).uniform(grid, MetricOptions())
    assert getattr(stats, name).flatten().tolist() == pytest.approx([expected] * 4, rel=1e-5)
    plain = TokenGrid(8, 12, (4, 4), window=(4, 4))
    assert expected < metrics.load(name).uniform(plain, MetricOptions())


def test_unknown_unit_is_refused():
    with pytest.raises(AttnprobeError, match="furlongs"):
        scale(GRID, "furlongs")


def test_hsic_and_its_leave_one_out_values():
    x = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(3)).double()
    whole, left = hsic(grams(x).numpy())
    k = [(layer @ layer.T).numpy() for layer in x]
    for a in range(3):
        for b in range(3):
            assert whole[a, b].item() == pytest.approx(hsic1(k[a], k[b]), rel=1e-9, abs=1e-12)
            for i in range(9):
                kept = np.delete(np.arange(9), i)
                part = np.ix_(kept, kept)
                expected = hsic1(k[a][part], k[b][part])
                assert left[i, a, b].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_biased_hsic_is_the_centred_product():
    x = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(4)).double()
    gram = x @ x.mT
    h = torch.eye(8).double() - 1 / 8
    expected = torch.trace(gram[0] @ h @ gram[1] @ h) / 49
    assert biased_hsic(gram)[0, 1].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("width", [16, 768, 4096])
def test_noise_is_unlike_noise_whatever_the_width(width):
    x = torch.randn(2, 192, width, generator=torch.Generator().manual_seed(5))
    assert abs(statistics.cka(feed(x, 50).mean(0))[0, 1]) < 0.1


def test_biased_cka_of_noise_is_large_and_warned_about():
    x = torch.randn(2, 64, 768, generator=torch.Generator().manual_seed(6))
    with pytest.warns(UserWarning, match="outnumber"):
        value = statistics.cka(feed(x, 64, cka_estimator="biased").mean(0))
    assert value[0, 1] > 0.9


@settings(max_examples=30, deadline=None)
@given(images=st.integers(5, 60), batch=st.integers(1, 70), mini=st.integers(10, 40))
def test_no_image_is_dropped_and_batches_do_not_matter(images, batch, mini):
    x = torch.randn(2, images, 6, generator=torch.Generator().manual_seed(images))
    samples = feed(x, batch, cka_batch=mini)
    assert len(samples) == images
    np.testing.assert_allclose(samples, feed(x, images, cka_batch=mini), rtol=1e-9)


def test_tiles_of_channels_add_up(monkeypatch):
    x = torch.randn(2, 9, 50, generator=torch.Generator().manual_seed(8))
    whole = grams([*x])
    monkeypatch.setattr(cka_module, "TILE", 7)
    torch.testing.assert_close(grams([*x]), whole, rtol=1e-10, atol=1e-10)


def test_cka_needs_five_images():
    with pytest.raises(AttnprobeError, match="at least 5"):
        feed(torch.randn(1, 4, 3), 4)


def test_token_modes():
    x = torch.arange(24.0).view(1, 4, 6)
    features = Features(LayerInfo(0, "b", 1, 6, TokenGrid(1, 3, (1, 1), 1, names=("cls",))), 1, x)
    mean, cls, flat = (MetricOptions(cka_tokens=name) for name in ("mean", "cls", "flat"))
    torch.testing.assert_close(cka_module.pool(features, mean), x[:, 1:].mean(1))
    torch.testing.assert_close(cka_module.pool(features, cls), x[:, 0])
    assert cka_module.pool(features, flat).shape == (1, 24)
    bare = Features(LayerInfo(0, "b", 1, 6, TokenGrid(1, 4, (1, 1))), 1, x)
    with pytest.raises(AttnprobeError, match="cls"):
        cka_module.pool(bare, cls)


def test_uniform_values_need_no_matrix_of_all_pairs(monkeypatch):
    grid = TokenGrid(40, 40, (16, 16), prefix=1)
    whole = grid.distances().mean(), grid.distances().max(-1).mean()
    monkeypatch.setattr(TokenGrid, "distances", lambda self: pytest.fail("all pairs at once"))
    seen = [part.stop - part.start for part in metrics.query_blocks(grid)]
    assert max(seen) * 1600 <= 1 << 20
    found = metrics.load("distance")
    assert found.uniform(grid, MetricOptions(entropy_unit="bits")) == pytest.approx(whole[0])
    assert found.maximum(grid, MetricOptions(entropy_unit="bits")) == pytest.approx(whole[1])
    assert metrics.load("entropy").uniform(grid, MetricOptions()) == pytest.approx(math.log(1600))
