"""Intervals against scipy's, and their behaviour at the edges."""

import inspect

import numpy as np
import pytest
from scipy import stats

from attnprobe import statistics


def test_limits_agree_with_scipy():
    rng = np.random.default_rng(0)
    samples = rng.gamma(1.5, size=(40, 3))
    low, high = statistics.interval(samples, resamples=60_000)
    # without a seed and with fewer draws, the noise of both sides alone reaches the tolerance
    named = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    theirs = stats.bootstrap((samples,), np.mean, n_resamples=60_000, method="BCa", **{named: 1})
    spread = theirs.standard_error
    np.testing.assert_allclose(low, theirs.confidence_interval.low, atol=0.05 * spread.max())
    np.testing.assert_allclose(high, theirs.confidence_interval.high, atol=0.05 * spread.max())


def test_intervals_cover_the_truth_at_the_nominal_rate():
    rng = np.random.default_rng(1)
    samples = rng.gamma(2.0, size=(60, 600))  # 600 studies of 60 images, mean 2
    low, high = statistics.interval(samples, resamples=1500)
    assert 0.92 < ((low <= 2) & (high >= 2)).mean() < 0.97


def test_constant_samples_have_a_closed_interval():
    low, high = statistics.interval(np.full((20, 2), 3.0))
    np.testing.assert_array_equal(low, [3.0, 3.0])
    np.testing.assert_array_equal(high, [3.0, 3.0])


def test_few_images_give_no_interval():
    low, high = statistics.interval(np.ones((statistics.MIN_IMAGES - 1, 2, 2)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    assert low.shape == (2, 2)


def test_the_same_seed_draws_the_same_images():
    samples = np.random.default_rng(2).normal(size=(30, 4))
    first, again = (statistics.interval(samples, seed=5) for _ in range(2))
    other = statistics.interval(samples, seed=6)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cka_interval_contains_the_estimate():
    rng = np.random.default_rng(3)
    base = rng.normal(size=(50, 1))
    vectors = base + 0.5 * rng.normal(size=(50, 3))
    samples = vectors[:, :, None] * vectors[:, None, :]
    low, high = statistics.interval(samples, statistics.CKA)
    value = statistics.cka(samples.mean(0))
    assert (low <= value + 1e-12).all()
    assert (high >= value - 1e-12).all()
    assert high[0, 1] - low[0, 1] > 0.01


def test_a_layer_without_variation_is_like_nothing_else():
    value = statistics.cka(np.array([[0.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(value, np.eye(2), rtol=1e-12)


@pytest.mark.parametrize("images", [8, 100])
def test_draws_count_every_image(images):
    counts = statistics.draw_counts(images, 50, seed=0)
    assert (counts.sum(1) == images).all()
