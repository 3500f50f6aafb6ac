"""Comparisons find what was planted, and nothing else."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import on_other_images, planted
from scipy import stats
from synthetic import synthetic_result

from attnprobe import alignment, significance, statistics
from attnprobe.comparison import (
    CompareOptions,
    Comparison,
    compare,
    differences,
    headsets,
    pairing,
)
from attnprobe.errors import AttnprobeError, OutputError, ResultError
from attnprobe.results import Result

FAST = {"resamples": 1000, "permutations": 1000}
FLAT = np.full((6, 4), 60.0)


def rows(comparison, table="differences", **where):
    frame = comparison.tables[table]
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def test_layers_that_differ_are_found_with_their_sign():
    local = FLAT.copy()
    local[2:4] -= 10.0
    found = compare([planted("a", distance=local), planted("b", distance=FLAT, seed=1)], **FAST)
    table = rows(found, metric="distance", scale="value", alignment="layer").set_index("position")
    assert table.index[table.q < 0.01].tolist() == [2, 3]
    assert table.value[2] == pytest.approx(-10, abs=0.5)
    assert (table.low < table.value).all()
    assert (table.value < table.high).all()
    assert table.high[[2, 3]].max() < -9
    assert table.effect[2] < -5 < table.effect[0]
    ratio = rows(found, metric="distance", scale="of uniform").set_index("position")
    assert ratio.value[2] == pytest.approx(table.value[2] / 100)
    assert list(ratio.unit) == [""] * 6


def test_two_copies_differ_in_nothing():
    result = planted("a", distance=FLAT)
    found = compare([result, result], **FAST)
    assert list(found.tables["models"].name) == ["a", "a (2)"]
    for table in ("differences", "overall"):
        frame = found.tables[table]
        assert (frame[["value", "low", "high", "effect"]] == 0).to_numpy().all()
        assert (frame.p == 1).all()
        assert frame.images_needed.isna().all()
    pair = rows(found, "verdicts", model_b=1)
    assert set(pair.verdict[pair.claim != "models_alike"]) == {"not decided"}


def test_rounding_of_the_measurement_is_no_difference():
    first = planted("a", distance=FLAT)
    shaken = first.samples["distance"].copy()
    shaken["value"] *= 1 + 5e-6
    again = replace(first, samples={**first.samples, "distance": shaken})
    found = compare([first, again], **FAST)
    assert (rows(found, metric="distance").value == 0).all()
    pair = rows(found, "verdicts", model_b=1)
    assert set(pair.verdict[pair.claim != "models_alike"]) == {"not decided"}


def test_permutation_test_agrees_with_scipy():
    gap = np.random.default_rng(3).normal(0.25, 1, (30, 2))
    ours = significance.sign_flip(gap, resamples=40_000)
    parameters = inspect.signature(stats.permutation_test).parameters
    named = "rng" if "rng" in parameters else "random_state"
    theirs = stats.permutation_test(
        (gap, np.zeros_like(gap)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=40_000,
        batch=1000,
        axis=0,
        **{named: 1},
    )
    np.testing.assert_allclose(ours, theirs.pvalue, atol=0.015)  # 3.5 standard errors of both


def test_few_pairs_get_every_sign_pattern():
    assert significance.sign_flip(np.array([[1.0], [2.0], [4.0]])) == pytest.approx(0.25)
    assert significance.sign_flip(np.zeros((12, 2))).tolist() == [1, 1]


def test_adjusted_p_values_are_scipys_and_skip_the_missing():
    p = np.array([0.001, np.nan, 0.2, 0.03])
    expected = stats.false_discovery_control(p[[0, 2, 3]])
    np.testing.assert_allclose(significance.benjamini_hochberg(p)[[0, 2, 3]], expected)
    assert np.isnan(significance.benjamini_hochberg(p)[1])


def test_images_needed_reach_the_promised_power():
    rng = np.random.default_rng(4)
    needed = int(significance.images_needed(rng.normal(0.3, 1, (100_000, 1)))[0])
    studies = rng.normal(0.3, 1, (needed, 400))
    low, high = statistics.interval(studies, resamples=1000)
    assert 0.74 < ((low > 0) | (high < 0)).mean() < 0.86


def test_draws_in_pieces_are_the_same_draws(monkeypatch):
    samples = np.random.default_rng(0).normal(size=(40, 3))
    whole = statistics.interval(samples, resamples=1000, seed=9)
    monkeypatch.setattr(statistics, "CACHED", 5000)
    np.testing.assert_allclose(statistics.interval(samples, resamples=1000, seed=9), whole)
    assert significance.sign_flip(samples, resamples=1000).shape == (3,)


def test_by_depth_the_deeper_model_is_interpolated():
    slope = np.linspace(20, 80, 7)[:, None].repeat(2, 1)
    shallow = np.linspace(20, 80, 4)[:, None].repeat(3, 1)
    found = compare(
        [
            planted("deep", distance=slope, noise=1e-3),
            planted("flat", distance=shallow, noise=1e-3),
        ],
        **FAST,
    )
    depth = rows(found, metric="distance", scale="value", alignment="depth")
    assert depth.depth.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert depth.layer_a.tolist() == pytest.approx([0, 2, 4, 6])
    assert np.abs(depth.value).max() < 0.01
    by_layer = rows(found, metric="distance", scale="value", alignment="layer")
    assert by_layer.value.tolist() == pytest.approx([0, -10, -20, -30], abs=0.01)


def test_fractional_layers_lie_between_their_neighbours():
    values = {0: np.array([0.0]), 1: np.array([10.0]), 2: np.array([20.0])}
    found = alignment.at_depths(values, 3, np.array([0.0, 0.25, 0.5, 1.0]))
    assert found.tolist() == [[0, 5, 10, 20]]
    assert alignment.at_depths({2: np.array([7.0])}, 5, np.array([0.0, 1.0])).tolist() == [[7, 7]]


def test_heads_are_compared_as_sets():
    wide = np.array([[20.0, 100.0, 60.0]] * 4)
    shuffled = wide[:, [2, 0, 1]]
    found = compare(
        [
            planted("a", distance=wide, noise=0.1),
            planted("b", distance=shuffled, noise=0.1, seed=1),
        ],
        match_heads=True,
        **FAST,
    )
    sets = rows(found, "head_sets", metric="distance", scale="value")
    assert sets.wasserstein.max() < 0.1
    assert (sets.low <= 0.1).all()
    assert (sets.high >= -0.1).all()
    couples = rows(found, "assignment", metric="distance", scale="value", layer_a=0)
    assert dict(zip(couples.head_a, couples.head_b, strict=True)) == {0: 1, 1: 2, 2: 0}
    assert couples.value.abs().max() < 0.2


def test_heads_are_paired_by_what_both_models_have():
    first = planted("a", distance=[[10.0, 50.0, 90.0]] * 4, noise=0.1)
    first = replace(first, samples={k: v for k, v in first.samples.items() if k != "entropy"})
    second = planted("b", distance=[[90.0, 10.0, 50.0]] * 4, noise=0.1, seed=1)
    found = compare([first, second], match_heads=True, **FAST)
    couples = rows(found, "assignment", metric="distance", scale="value", layer_a=0)
    assert dict(zip(couples.head_a, couples.head_b, strict=True)) == {0: 1, 1: 2, 2: 0}


def test_one_head_a_layer_leaves_out_divergences_alone():
    single = [
        planted(name, distance=np.full((4, 1), 60.0 + seed), seed=seed)
        for seed, name in enumerate("ab")
    ]
    found = compare(single, match_heads=True, **FAST)
    assert set(found.tables["differences"].metric) == {"distance", "entropy"}
    assert any("head_kl" in note for note in found.notes)


def test_depths_without_a_value_are_left_out():
    deep = planted("deep", distance=np.full((8, 2), 70.0))
    part = {k: v.query("layer >= 4") for k, v in deep.samples.items() if k == "distance"}
    deep = replace(deep, samples={**deep.samples, **part})
    found = compare([deep, planted("flat", distance=np.full((4, 2), 30.0), seed=1)], **FAST)
    depth = rows(found, metric="distance", scale="value", alignment="depth")
    assert depth.layer_a.min() >= 4
    assert len(depth) == 2


@pytest.mark.parametrize("unit", ["unit square", "tokens"])
def test_small_units_are_resolved_as_finely(unit):
    small = [_in_unit(name, seed, unit) for seed, name in enumerate("ab")]
    found = compare(small, **FAST)
    assert rows(found, metric="distance", scale="value").value.abs().min() > 0.004


def _in_unit(name, seed, unit):
    distance = np.full((4, 2), 0.05 + 0.0075 * seed)
    result = planted(name, distance=distance, noise=1e-4, uniform=0.1, seed=seed)
    precision = ("float32", "bfloat16")[seed]
    table = result.tables["distance"].assign(unit=unit)
    return replace(
        result,
        tables={**result.tables, "distance": table},
        provenance=replace(result.provenance, precision=precision),
    )


def test_constant_differences_have_no_effect_size():
    assert np.isnan(significance.effect_size(np.full(12, 0.3)))
    assert significance.effect_size(np.zeros(12)) == 0


def test_spread_differences_have_their_truth_inside():
    wide, narrow = np.array([[20.0, 100.0]] * 4), np.array([[50.0, 70.0, 60.0, 60.0]] * 4)
    found = compare([planted("a", distance=wide), planted("b", distance=narrow, seed=1)], **FAST)
    sets = rows(found, "head_sets", metric="distance", scale="value")
    truth = wide[0].std() - narrow[0].std()
    assert ((sets.low < truth + 0.3) & (sets.high > truth - 0.3)).all()
    assert sets.wasserstein.tolist() == pytest.approx([35.0] * 4, abs=1.0)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (12, 16)])
def test_wasserstein_is_scipys(sizes):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=size) for size in sizes)
    assert headsets.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b))


def test_running_intervals_close_in_and_end_at_the_whole():
    local = planted("a", distance=FLAT - 1, noise=4.0)
    found = compare([local, planted("b", distance=FLAT, noise=4.0, seed=1)], **FAST)
    steps = rows(found, "running", metric="distance", scale="value")
    assert steps.images.tolist()[0] == 8
    assert steps.images.tolist()[-1] == 64
    width = (steps.high - steps.low).tolist()
    assert width[-1] < width[0] / 2
    whole = rows(found, "overall", metric="distance", scale="value")
    assert steps.value.iloc[-1] == pytest.approx(whole.value.iloc[0])


def features(seed, layers=3, images=64, width=20, mix=None):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(images, 8)) if mix is None else mix
    return [
        base @ rng.normal(size=(8, width)) + 0.1 * rng.normal(size=(images, width))
        for _ in range(layers)
    ]


def test_shuffled_layers_are_recognised_across_models():
    rng = np.random.default_rng(0)
    own = [rng.normal(size=(64, 30)) for _ in range(4)]
    rotation = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    order = [2, 0, 3, 1]
    other = [own[at] @ rotation * 3 for at in order]
    found = compare([planted("a", features=own), planted("b", features=other)], **FAST)
    table = found.tables["cross_cka"].pivot(index="layer_b", columns="layer_a", values="value")
    assert table.to_numpy().argmax(1).tolist() == order
    assert table.to_numpy().max(1) == pytest.approx(1, abs=1e-5)
    away = found.tables["cross_cka"].query("value < 0.9")
    assert away.value.abs().max() < 0.4
    assert (away.low <= away.value + 1e-9).all()


def test_cka_across_is_the_definition():
    first, second = features(1), features(2, width=33, layers=5)
    found = compare([planted("a", features=first), planted("b", features=second)], **FAST)
    table = found.tables["cross_cka"].set_index(["layer_a", "layer_b"])
    k, m = (np.array(x[1] - x[1].mean(0)) for x in (first, second))
    k, m = k @ k.T, m @ m.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)

    def hsic1(a, b):
        n, one = len(a), np.ones(len(a))
        inner = np.trace(a @ b) + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return inner - 2 * (one @ a @ b @ one) / (n - 2)

    truth = hsic1(k, m) / np.sqrt(hsic1(k, k) * hsic1(m, m))
    assert table.value[1, 1] == pytest.approx(truth, abs=1e-5)
    assert len(table) == 15


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_and_too_many_models_are_refused(count):
    with pytest.raises(ResultError, match="2 to 8"):
        compare([planted()] * count)


def test_eight_models_have_twenty_eight_pairs():
    found = compare([planted(images=16, seed=n) for n in range(8)], **FAST)
    pairs = found.tables["overall"][["model_a", "model_b"]].drop_duplicates()
    assert len(pairs) == 28
    assert len(set(found.tables["models"].name)) == 8


def test_other_images_are_refused_by_hash():
    with pytest.raises(ResultError, match="different images") as caught:
        compare([planted("first"), on_other_images(planted("second"))])
    assert "first" in caught.value.cause
    assert "second" in caught.value.cause
    assert "--limit" in caught.value.remedy


def test_other_conventions_are_refused():
    first = planted("first")
    table = first.tables["distance"].assign(definition="tokens, v1", unit="tokens")
    other = replace(first, tables={**first.tables, "distance": table})
    with pytest.raises(ResultError, match=r"distance, v1.*tokens, v1"):
        compare([first, other])


def test_labels_never_repeat():
    names = [r.name for r in pairing.labelled(planted(name) for name in ("a", "a (2)", "a", "a"))]
    assert len(set(names)) == 4
    assert names[:2] == ["a", "a (2)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence"),
        ({"resamples": 10}, "too few"),
        ({"permutations": 10}, "too few"),
        ({"thresholds": {"nonsense": 1.0}}, "nonsense"),
        ({"thresholds": {"local": float("nan")}}, "local"),
        ({"thresholds": {"local": "x"}}, "local"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(AttnprobeError, match=message):
        compare([planted(), planted()], **options)


def test_results_without_a_metric_are_compared_in_the_others():
    short = synthetic_result("short", metrics=("entropy",), images=12)
    full = synthetic_result("full", seed=1, images=12)
    found = compare([short, full], **FAST)
    assert set(found.tables["differences"].metric) == {"entropy"}
    assert any("distance" in note for note in found.notes)
    pairs = found.tables["verdicts"].query("model_b >= 0")
    assert set(pairs.verdict) == {"not decided"}
    assert pairs.evidence.str.startswith("Not judged").all()


def test_incomplete_samples_are_refused():
    broken = planted("broken")
    samples = {**broken.samples, "distance": broken.samples["distance"].iloc[:-1]}
    with pytest.raises(ResultError, match=r"distance in broken"):
        compare([planted(), replace(broken, samples=samples)])
    arrays = {"grams": {"values": np.ones((2, 3)), "sizes": np.array([64])}}
    with pytest.raises(ResultError, match="Gram"):
        compare([replace(planted("x"), arrays=arrays)] * 2)


def test_one_image_is_compared_without_intervals():
    found = compare([planted(images=1), planted(images=1, seed=1)], **FAST)
    assert found.tables["differences"].low.isna().all()
    assert "few" in found.notes[-1]


def test_other_precisions_and_inputs_are_said():
    first, second = planted("a"), planted("b", seed=1)
    coarse = replace(
        second,
        provenance=replace(second.provenance, precision="bfloat16"),
        model={**second.model, "input_size": [3, 384, 384], "crop_pct": 1.0},
    )
    text = " ".join(compare([first, coarse], **FAST).notes)
    for word in ("224 x 224", "384 x 384", "bfloat16", "crops"):
        assert word in text


def test_differences_below_the_deviation_of_a_smaller_type_count_as_none():
    first, second = planted("a"), planted("b", seed=1)
    assert differences.resolution(first, second) == differences.RESOLUTION

    def low(result, **deviation):
        facts = replace(result.provenance, precision="bfloat16", deviation=deviation)
        return replace(result, provenance=facts)

    a, b = low(first, distance=1e-3, head_kl=0.5), low(second, distance=4e-3)
    assert differences.resolution(a, b, "distance") == 4e-3
    assert differences.resolution(a, b, "head_kl") == differences.COARSE
    assert differences.resolution(a, b, "entropy") == differences.RESOLUTION
    assert differences.resolution(first, b, "entropy") == differences.COARSE
    assert any("ran in bfloat16" in note for note in compare([a, b], **FAST).notes)


def test_windows_beside_global_attention_are_said():
    windowed = planted("swin", seed=1)
    windowed = replace(windowed, layers=windowed.layers.assign(window_rows=7, window_cols=7))
    told = "swin: attention in windows"
    assert any(note.startswith(told) for note in compare([planted("vit"), windowed], **FAST).notes)
    assert not any("windows" in note for note in compare([windowed, windowed], **FAST).notes)


def test_a_saved_comparison_reads_back_the_same(tmp_path):
    found = compare(
        [planted("a", features=features(1)), planted("b", seed=1, features=features(2))],
        confidence=0.9,
        thresholds={"local": 0.8},
        **FAST,
    )
    folder = found.save(tmp_path / "out", texts={"log.txt": "hello\n"})
    again = Comparison.load(folder)
    assert again.options == found.options
    for name, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_dtype=False, atol=1e-9)
    assert {path.name for path in folder.iterdir()} == {
        *("config.toml", "manifest.json", "verdicts.csv", "summary.csv"),
        *("tables", "runs", "log.txt"),
    }
    with pytest.raises(OutputError, match="already"):
        found.save(folder)
    with pytest.raises(ResultError, match="holds a comparison"):
        Result.load(folder)
    assert Result.load(folder / "runs" / "01-a").name == "a"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "result"},
        {"schema": 99},
        {"runs": ["../../x", "02-b"]},
        {"runs": 3},
        {"names": ["a"]},
        {"names": ["a", 3]},
        {"finished": False},
        {"options": {"confidence": 7}},
        {"options": []},
    ],
)
def test_a_tampered_comparison_is_refused(tmp_path, change):
    folder = compare([planted("a"), planted("b")], **FAST).save(tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(AttnprobeError):
        Comparison.load(folder)


def test_comparisons_never_import_torch(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        planted(name, seed=seed, features=features(seed)).save(tmp_path / name)
    code = """
import sys
for name in ("torch", "timm", "torchvision"):
    sys.modules[name] = None
import attnprobe
found = attnprobe.compare([sys.argv[1] + "/a", sys.argv[1] + "/b"])
folder = found.save(sys.argv[1] + "/out")
attnprobe.Comparison.load(folder)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_options_have_sane_defaults():
    assert CompareOptions().flat() == CompareOptions(**CompareOptions().flat()).flat()
