"""A track finds what a made-up training run changed, in which layers, and when it stopped."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import synthetic_result
from tracks import run, with_cka

from attnprobe import statistics
from attnprobe.report.tracksummary import sentences
from attnprobe.tracking import order, track

STEPS = (10, 50, 100)


@pytest.fixture(scope="module")
def found():
    return track(reversed(run(STEPS)), name="mine")


def rows(track, table, metric):
    frame = track.tables[table]
    return frame[frame["metric"] == metric].reset_index(drop=True)


@pytest.mark.parametrize(
    ("epochs", "names", "values", "word"),
    [
        ([3, 1, 2.5], ["a", "b", "c"], (3, 1, 2.5), "epoch"),
        ([None, 1], ["a-9", "a-10"], (9, 10), "step"),
        ([5, 5], ["a-9", "a-10"], (9, 10), "step"),
        ([None] * 2, ["v2/ckpt_ep9", "v2/ckpt_ep10"], (9, 10), "epoch"),
        ([None] * 2, ["x/model_9_rank0.pth", "x/model_10_rank0.pth"], (9, 10), "step"),
        ([None] * 2, ["x/iter_500.pth", "x/iter_1000.pth"], (500, 1000), "iteration"),
        ([None] * 2, ["x/best_7", "y/9"], (7, 9), "step"),
        ([None] * 2, ["x/best", "x/9"], (1, 2), "checkpoint"),
        ([None] * 2, ["x/7", "y/7"], (1, 2), "checkpoint"),
    ],
)
def test_steps_are_told_by_epochs_then_names_then_the_order(epochs, names, values, word):
    steps = order.read(epochs, names)
    assert (steps.values, steps.word) == (values, word)
    assert word in ("epoch", "checkpoint") or "names" in steps.source


def test_the_order_of_the_steps_is_the_order_of_the_track(found):
    assert found.steps == STEPS
    assert all(type(step) is int for step in found.steps)
    assert [result.name for result in found.results] == [f"ckpt_epoch_{n}" for n in STEPS]
    assert (found.word, found.source) == ("epoch", "the numbers in the names of the checkpoints")
    assert not any(result.samples or result.arrays for result in found.results)


def test_given_steps_win_over_what_names_say():
    found = track(run((1, 2)), steps=(0.5, 0.25))
    assert found.steps == (0.25, 0.5)
    assert [result.name for result in found.results] == ["ckpt_epoch_2", "ckpt_epoch_1"]


def test_every_layer_mean_and_head_of_every_checkpoint_is_in_the_tables(found):
    for step, result in zip(STEPS, run(STEPS), strict=True):
        table = found.tables["track"]
        table = table[table["step"] == step].drop(columns="step")
        expected = result.tables["layer_means"]
        pd.testing.assert_frame_equal(table.reset_index(drop=True)[[*expected]], expected)
        for metric, source in (("distance", "distance"), ("head_kl", "head_kl_mean")):
            heads = rows(found, "track_heads", metric)
            heads = heads[heads["step"] == step]
            assert heads["value"].tolist() == result.tables[source]["value"].tolist()


def test_heads_add_their_prefix_tokens_up():
    names = [f"r{step}" for step in (1, 2)]
    results = [synthetic_result(name, tokens=("cls", "reg"), images=9) for name in names]
    heads = rows(track(results), "track_heads", "prefix_mass").query("step == 1")
    sums = results[0].tables["prefix_mass"].groupby(["layer", "head"])["value"].sum()
    assert heads["value"].tolist() == pytest.approx(sums.tolist())


def test_planted_changes_are_found_where_they_were_planted(found):
    table = rows(found, "changes", "distance")
    assert table["change"].tolist() == pytest.approx([-36, -36, 0, 0], abs=0.3)
    assert table["change"].tolist() == (table["value_last"] - table["value_first"]).tolist()
    assert (table["low"] < table["change"]).all()
    assert (table["change"] < table["high"]).all()
    assert (table["q"] < 0.01).tolist() == [True, True, False, False]
    assert (table["high"] < 0).tolist() == [True, True, False, False]
    entropy = rows(found, "changes", "entropy")
    assert entropy["change"].tolist() == pytest.approx([0.45] * 4, abs=0.02)


def test_intervals_of_changes_are_paired_by_image(found):
    """What images have in common cancels; the levels' own intervals are far wider."""
    change, level = (rows(found, name, "distance") for name in ("changes", "track"))
    widest = (change["high"] - change["low"]).max()
    assert widest < 0.2 * (level["high"] - level["low"]).min()


def test_limits_and_p_values_are_those_of_the_per_image_differences(found):
    first, last = (
        result.samples["head_kl"]
        .query("head_a != head_b")
        .groupby(["image", "layer"])["value"]
        .mean()
        .unstack()
        for result in run((10, 100))
    )
    gap = (last - first).to_numpy(np.float64)
    table = rows(found, "changes", "head_kl")
    low, high = statistics.interval(gap, resamples=2000, seed=0)
    assert table["low"].tolist() == pytest.approx(low.tolist(), abs=1e-6)
    assert table["high"].tolist() == pytest.approx(high.tolist(), abs=1e-6)
    few = track(run((1, 2), images=9))
    values = rows(few, "changes", "distance")
    samples = [result.samples["distance"] for result in run((1, 2), images=9)]
    means = [frame.groupby(["image", "layer"])["value"].mean().unstack() for frame in samples]
    for layer in range(4):
        gap = (means[1] - means[0])[layer].to_numpy(np.float64)
        exact = stats.permutation_test(
            (gap,), np.mean, permutation_type="samples", n_resamples=2000
        )
        assert values["p"][layer] == pytest.approx(exact.pvalue)
    assert values["q"].tolist() == pytest.approx(
        stats.false_discovery_control(values["p"].to_numpy()).tolist()
    )


def test_one_checkpoint_twice_has_changed_nowhere():
    (one,) = run((1,))
    again = replace(one, name="again")
    found = track([one, again], steps=(1, 2))
    table = found.tables["changes"]
    assert (table[["change", "low", "high"]] == 0).all(axis=None)
    assert (table["p"] == 1).all()
    assert all("no change can be told in all 4 layers" in text for text in sentences(found)[1:])
    assert set(found.tables["settled"]["step"]) == {1}


def test_without_enough_images_nothing_is_judged():
    found = track(run((1, 2), images=4))
    assert found.tables["changes"][["low", "high"]].isna().all(axis=None)
    assert found.tables["settled"].empty
    assert sentences(found)[1:] == []
    assert "no change is judged" in sentences(found)[0]


def test_settled_is_the_first_step_after_which_the_mean_stays_inside():
    results = run((1, 2, 3, 4, 5))
    series = {0: (9, 5, 9, 5.1, 5), 1: (5, 5, 5, 5, 5), 2: (5, 5, 5, 9, 5), 3: (9, 5.05, 5, 5, 5)}
    for at, result in enumerate(results):
        means = result.tables["layer_means"]
        for layer, values in series.items():
            here = (means["metric"] == "distance") & (means["layer"] == layer)
            means.loc[here, ["value", "low", "high"]] = [values[at], values[at] - 0.2, 5.2]
    table = rows(track(results), "settled", "distance")
    assert table["step"].tolist() == [4, 1, pd.NA, 2]
    assert table["step"].dtype == "Int64"


def test_every_layer_is_compared_with_what_it_becomes():
    results = [with_cka(result) for result in run(STEPS)]
    table = rows(track(results), "track", "cka_last")
    assert table[table["step"] == 100]["value"].tolist() == pytest.approx([1.0] * 4)
    grams = [result.arrays["grams"]["values"].astype(np.float64) for result in results]
    for layer in range(4):
        squares = [_square(gram[layer], 40) for gram in grams]
        value = _hsic(squares[0], squares[2]) / np.sqrt(
            _hsic(squares[0], squares[0]) * _hsic(squares[2], squares[2])
        )
        assert table["value"][layer] == pytest.approx(value)
    assert (table["low"] <= table["value"] + 1e-12).all()
    assert track(run(STEPS)).tables["track"]["metric"].isin(["cka_last"]).sum() == 0


def _square(values, n):
    gram = np.zeros((n, n))
    gram[np.triu_indices(n, 1)] = values
    return gram + gram.T


def _hsic(a, b):
    """Song et al. 2012, equation 5."""
    n = len(a)
    one = np.ones(n)
    inner = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
    return (np.trace(a @ b) + inner - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))


def test_a_track_of_cka_alone_is_a_track():
    results = [with_cka(result) for result in run(STEPS)]
    bare = [
        replace(result, samples={}, tables={**result.tables, "layer_means": pd.DataFrame()})
        for result in results
    ]
    found = track(bare)
    assert set(found.tables["track"]["metric"]) == {"cka_last"}
    assert found.tables["changes"].empty


def test_opening_sentences_name_the_layers_and_the_numbers(found):
    opening = sentences(found)
    assert opening[0].startswith("3 checkpoints, epoch 10 to epoch 100: 4 attention layers of 3")
    distance = next(text for text in opening if text.startswith("Attention distance"))
    assert "changed most in layers 1 and 2, whose intervals overlap" in distance
    assert "It fell in 2 of 4 layers, and no change can be told in 2." in distance
    row = rows(found, "changes", "distance").loc[0]
    assert any(f"{value:.4g}".lstrip("-") in distance for value in (row["change"], -36.0))
    apart = next(text for text in opening if text.startswith("Divergence"))
    assert "changed most in layer 1: from" in apart
