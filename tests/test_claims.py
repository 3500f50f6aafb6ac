"""Claims get the right verdicts on planted models, at the promised rates."""

from dataclasses import replace

import numpy as np
import pytest
from planted import planted

from attnprobe import claims, significance, statistics
from attnprobe.claims import CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED
from attnprobe.comparison import CompareOptions, compare, deciding, differences, verdicts

FAST = {"resamples": 1000, "permutations": 1000}
NAMES = claims.names()
STUDIES = 240  # a rate of 95 % is then known to about 1.4 %


def verdict(name, *results, pair=False, **options):
    table = compare(results if len(results) > 1 else results * 2, **FAST, **options)
    rows = table.tables["verdicts"]
    rows = rows[(rows.claim == name) & ((rows.model_b >= 0) == pair)]
    return rows.iloc[0]


def local_model(value=60.0, layers=6, **options):
    return planted(distance=np.full((layers, 4), value), **options)


def mixed_model(**options):
    return planted(distance=[[20.0, 60.0, 100.0, 110.0]] * 6, **options)


def collapsed_kl(layers=9, heads=3, last=0.1):
    kl = np.ones((layers, heads, heads))
    kl[-3:] *= last
    return kl


def model_with_kl(kl, **options):
    return planted(distance=np.full((len(kl), kl.shape[1]), 60.0), kl=kl, **options)


def test_the_claims_of_the_paper_are_there():
    expected = {"local_everywhere", "local_and_global", "diversity_collapses", "layers_alike"}
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_claims_explain_themselves(name):
    claim = claims.load(name)
    assert claim.name == name
    assert claim.limit in claim.thresholds
    words = claim.quantity.format(**claim.thresholds)
    assert f"{claim.thresholds[claim.limit]:g}" in words
    assert "{a}" in claim.statement
    assert (claim.measure is None) != (claim.between is None)
    assert bool(claim.versus) == bool(claim.versus_quantity) == (claim.measure is not None)


def test_thresholds_belong_to_one_claim_each():
    names = [name for claim in map(claims.load, NAMES) for name in claim.thresholds]
    assert len(names) == len(set(names))
    assert "local" + MARGIN in claims.defaults()


@pytest.mark.parametrize(
    ("value", "expected"), [(60.0, SUPPORTED), (130.0, CONTRADICTED), (100.0, UNDECIDED)]
)
def test_local_everywhere(value, expected):
    found = verdict("local_everywhere", local_model(value, noise=8.0))
    assert found.verdict == expected
    assert found.limit == 1.0


def test_one_layer_above_uniform_contradicts_local_everywhere_and_is_named():
    distance = np.full((6, 4), 60.0)
    distance[4] = 110.0
    found = verdict("local_everywhere", planted(distance=distance))
    assert found.verdict == CONTRADICTED
    assert "5 of 6 layers" in found.evidence
    assert "layer 5 has 1.1" in found.evidence
    assert found.low < 1.1 < found.high


def test_a_threshold_can_be_changed():
    found = verdict("local_everywhere", local_model(60.0), thresholds={"local": 0.5})
    assert found.verdict == CONTRADICTED
    assert found.limit == 0.5
    assert "below 0.5" in found.quantity


def test_local_and_global_heads():
    assert verdict("local_and_global", mixed_model()).verdict == SUPPORTED
    assert verdict("local_and_global", local_model(noise=0.1)).verdict == CONTRADICTED
    pair = verdict("local_and_global", mixed_model(), local_model(noise=0.1), pair=True)
    assert pair.verdict == SUPPORTED


def test_diversity_collapses():
    collapsed, kept = model_with_kl(collapsed_kl()), model_with_kl(collapsed_kl(last=1.0))
    assert verdict("diversity_collapses", collapsed).verdict == SUPPORTED
    assert verdict("diversity_collapses", kept).verdict == CONTRADICTED
    pair = verdict("diversity_collapses", collapsed, kept, pair=True)
    assert pair.verdict == SUPPORTED
    assert pair.value == pytest.approx(-0.9, abs=0.1)
    assert verdict("diversity_collapses", kept, collapsed, pair=True).verdict == CONTRADICTED


@pytest.mark.parametrize(
    ("kl", "reason"),
    [
        (np.ones((4, 3, 3)), "no 3 last ones"),
        (np.zeros((9, 3, 3)), "no diversity to lose"),
    ],
)
def test_diversity_that_cannot_be_judged_is_not_decided(kl, reason):
    found = verdict("diversity_collapses", model_with_kl(kl))
    assert found.verdict == UNDECIDED
    assert reason in found.evidence
    assert np.isnan(found.value)


def test_turns_global():
    rising = np.linspace(40, 100, 6)[:, None].repeat(4, 1)
    assert verdict("turns_global", planted(distance=rising)).verdict == SUPPORTED
    assert verdict("turns_global", local_model()).verdict == CONTRADICTED


def independent(seed, layers=6, images=96):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, 24)) for _ in range(layers)]


def drifting(seed, share, layers=6, images=96):
    """Layers that keep `share` of a common part."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(images, 6)) @ rng.normal(size=(6, 24))
    noise = (rng.normal(size=(images, 24)) * 3 for _ in range(layers))
    return [share * base + (1 - share) * own for own in noise]


def test_layers_alike():
    alike = planted("alike", features=drifting(0, 0.95), images=96)
    apart = planted("apart", features=independent(1), images=96)
    assert verdict("layers_alike", alike).verdict == SUPPORTED
    assert verdict("layers_alike", apart).verdict == CONTRADICTED
    assert verdict("layers_alike", alike, apart, pair=True).verdict == SUPPORTED
    assert verdict("models_alike", alike, alike, pair=True).verdict == SUPPORTED
    assert verdict("models_alike", alike, apart, pair=True).verdict == CONTRADICTED


def test_too_few_images_decide_nothing():
    found = compare([local_model(images=5), local_model(80, images=5, seed=1)], **FAST)
    assert set(found.tables["verdicts"].verdict) == {UNDECIDED}


def test_a_margin_asks_for_more_than_a_significant_difference():
    models = local_model(60.0), local_model(62.0, seed=1)
    plain = verdict("local_everywhere", *models, pair=True)
    wide = verdict("local_everywhere", *models, pair=True, thresholds={"local_margin": 0.05})
    assert plain.verdict == SUPPORTED
    assert wide.verdict == UNDECIDED


def test_the_layer_that_refutes_a_claim_is_the_one_that_is_told():
    """A noisy layer lies highest, a quiet one above the limit carries the verdict."""
    rng = np.random.default_rng(0)
    distance = np.full((4, 2), 60.0)
    distance[1], distance[2] = 109.0, 104.0
    result = planted(distance=distance, noise=0.5)
    loud = result.samples["distance"].copy()
    shift = rng.permutation(np.repeat([-60.0, 60.0], 32))
    loud["value"] += np.where(loud.layer == 1, shift[loud.image], 0)
    found = verdict(
        "local_everywhere", replace(result, samples={**result.samples, "distance": loud})
    )
    assert found.verdict == CONTRADICTED
    assert "layer 3 has 1.04" in found.evidence
    assert found.low > 1


@pytest.mark.parametrize("name", ["turns_global", "local_and_global", "local_everywhere"])
def test_rounding_decides_nothing_however_small_the_quantity(name):
    first = planted("a", noise=1.0)
    shaken = first.samples["distance"].copy()
    shaken["value"] *= np.where((shaken.layer >= 2) & (shaken["head"] == 0), 1 + 1e-6, 1)
    again = replace(first, samples={**first.samples, "distance": shaken})
    found = verdict(name, first, again, pair=True)
    assert found.verdict == UNDECIDED


@pytest.mark.parametrize("name", ["local_everywhere", "local_and_global"])
def test_claims_about_every_layer_need_every_layer(name):
    result = mixed_model()
    part = result.samples["distance"].query("layer > 2")
    means = result.tables["layer_means"]
    means = means[(means.metric != "distance") | (means.layer > 2)]
    tables = {**result.tables, "layer_means": means}
    short = replace(result, samples={**result.samples, "distance": part}, tables=tables)
    found = verdict(name, short)
    assert found.verdict == UNDECIDED
    assert "3 of 6 layers have" in found.evidence


def test_a_model_is_like_itself_even_where_a_layer_hardly_varies():
    """Resamples whose self-similarity falls below zero are no CKA of zero."""
    rng = np.random.default_rng(5)
    weak = [0.18 * rng.normal(size=(40, 1)) + rng.normal(size=(40, 30)) for _ in range(2)]
    strong = [rng.normal(size=(40, 2)) for _ in range(2)]
    result = planted(features=[*strong, *weak], images=40)
    table = compare([result, result], **FAST).tables["cross_cka"]
    own = table[(table.layer_a == table.layer_b) & table.low.notna()]
    assert own.low.tolist() == pytest.approx([1] * len(own), abs=1e-6)


def test_numbers_show_on_which_side_they_lie():
    assert deciding.numbers(1.0024, 1.0008, 1.004, 1.0) == "1.002 [1.001, 1.004]"
    assert deciding.numbers(1.00024, 1.00008, 1.0004, 1.0) == "1.0002 [1.0001, 1.0004]"
    assert deciding.numbers(0.6, 0.5, 0.7, 1.0) == "0.6 [0.5, 0.7]"


def study(seed, means, noise=12.0, images=64):
    """Two models on the same photographs, whose truth is `means`."""
    shared = np.random.default_rng(seed).gamma(4, 3, images)  # photographs are skewed
    return tuple(
        planted(
            f"m{at}",
            distance=np.full((3, 2), mean - 12.0),
            noise=noise,
            shared=shared,
            images=images,
            seed=(seed, at),
        )
        for at, mean in enumerate(means)
    )


SETTINGS = CompareOptions(resamples=1000, permutations=1000)


@pytest.fixture(scope="module")
def studies():
    return [study(seed, (60.0, 63.0)) for seed in range(STUDIES)]


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "truth"), [("value", -3.0), ("of uniform", -0.03)])
def test_intervals_of_paired_differences_cover_the_truth(studies, scale, truth):
    inside = []
    for a, b in studies:
        table = differences.table(a, b, (0, 1), SETTINGS)
        part = table[(table.metric == "distance") & (table.scale == scale)]
        inside += [*((part.low <= truth) & (truth <= part.high))]
    assert len(inside) == 3 * STUDIES
    assert 0.92 <= np.mean(inside) <= 0.98


@pytest.mark.slow
def test_overall_intervals_cover_the_truth(studies):
    rows = [differences.overall(a, b, (0, 1), SETTINGS).iloc[0] for a, b in studies]
    assert {(row.metric, row.scale) for row in rows} == {("distance", "value")}
    assert 0.92 <= np.mean([row.low <= -3 <= row.high for row in rows]) <= 0.98


@pytest.mark.slow
def test_equal_models_are_not_decided_at_the_nominal_rate():
    claim, fine = claims.load("local_everywhere"), (0.0, differences.RESOLUTION)
    undecided, small = [], []
    for seed in range(STUDIES):
        a, b = study(seed + 1000, (60.0, 60.0))
        first, second = (claim.measure(model, claims.defaults()) for model in (a, b))
        judged = verdicts._against(first, second, claim, SETTINGS, fine)
        undecided.append(judged.verdict == UNDECIDED)
        gap = np.stack([first.samples - second.samples])[0]
        small += [*(significance.sign_flip(gap, resamples=1000, seed=seed) < 0.05)]
    assert 0.92 <= np.mean(undecided) <= 0.98
    assert 0.02 <= np.mean(small) <= 0.08


@pytest.mark.slow
def test_the_interval_of_a_ratio_covers_the_truth():
    claim = claims.load("diversity_collapses")
    inside = []
    for seed in range(STUDIES):
        result = model_with_kl(collapsed_kl(last=0.4), seed=seed)
        quantity = claim.measure(result, claims.defaults())
        statistic = quantity.judged
        low, high = statistics.interval(quantity.samples, statistic, resamples=1000, seed=seed)
        inside.append(low[0] <= 0.4 <= high[0])
    assert 0.92 <= np.mean(inside) <= 0.98


@pytest.mark.slow
def test_the_interval_of_cka_covers_the_truth():
    """Two layers share a part of known size; the truth is their CKA over very many images."""

    def layers(seed, images):
        rng = np.random.default_rng(seed)
        base = rng.normal(size=(images, 8))
        return [base + 0.8 * rng.normal(size=(images, 8)) for _ in range(2)]

    x, y = layers(0, 200_000)
    own = [np.linalg.norm(np.cov(a.T)) for a in (x, y)]
    truth = np.linalg.norm(np.cov(x.T, y.T)[:8, 8:]) ** 2 / np.prod(own)
    claim = claims.load("layers_alike")
    inside = []
    for seed in range(STUDIES):
        result = planted(features=layers(seed + 1, 128), images=128)
        quantity = claim.measure(result, claims.defaults())
        statistic = quantity.judged
        low, high = statistics.interval(quantity.samples, statistic, resamples=1000, seed=seed)
        inside.append(low[0] <= truth <= high[0])
    assert 0.92 <= np.mean(inside) <= 0.98
