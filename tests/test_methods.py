"""The methods paragraph says what the options, the geometry and the tables say."""

from dataclasses import replace

import pytest
from synthetic import synthetic_result

from attnprobe.report import render
from attnprobe.report.methods import paragraphs


def text(result=None, **config):
    result = result or synthetic_result()
    result.config.update(config)
    return " ".join(paragraphs(result))


def test_methods_describe_every_metric_and_cite_their_sources():
    words = text()
    for phrase in ("Attention distance is", "Attention entropy is", "Kullback", "Prefix mass is"):
        assert phrase in words
    for authors in ("Xie", "Dosovitskiy", "Raghu", "Nguyen", "Song"):
        assert f"{authors} et al." in words


def test_methods_leave_out_what_was_not_measured():
    words = text(synthetic_result(metrics=("entropy",)))
    assert "Attention entropy is" in words
    for phrase in ("distance is", "Kullback", "Prefix mass", "HSIC", "Nguyen", "Raghu"):
        assert phrase not in words


@pytest.mark.parametrize(
    ("config", "phrase"),
    [
        ({"prefix": "renormalised"}, "renormalised after the prefix tokens are dropped"),
        ({"prefix": "excluded"}, "is not renormalised"),
        ({"prefix": "included"}, "a prefix token lies at distance zero"),
        ({"average": "attention"}, "averaged over images first"),
        ({"average": "statistic"}, "then over images"),
        ({"divergence": "symmetric"}, "mean of KL(i‖j) and KL(j‖i)"),
        ({"divergence": "js"}, "Jensen"),
        ({"distance_unit": "tokens"}, "pixels divided by the side of a token"),
        ({"entropy_unit": "bits"}, "binary logarithm (bits)"),
        ({"cka_tokens": "flat"}, "all tokens of an image"),
        ({"cka_estimator": "biased"}, "biased estimator, which is too high"),
        ({"cka_batch": 48}, "mini-batches of 48 images"),
        ({"resamples": 1234}, "with 1234 draws"),
        ({"images": "bundled"}, "23 photographs"),
        ({"divergence": "of a later release"}, "of a later release"),
    ],
)
def test_methods_follow_the_options(config, phrase):
    assert phrase in text(**config)


def test_methods_name_windows_prefix_tokens_and_crops_only_where_there_are_any():
    assert "shift mask" in text(synthetic_result(window=7))
    plain = text(synthetic_result(tokens=()))
    assert "shift mask" not in plain
    assert "There are no prefix tokens" in plain
    assert "23 photographs" not in plain


def test_methods_state_the_uniform_and_the_largest_values():
    layers = synthetic_result().layers
    words = text()
    assert f"{layers.distance_uniform[0]:.4g} px" in words
    assert f"{layers.distance_max[0]:.4g} px" in words
    assert f"{layers.entropy_uniform[0]:.4g} nats, which is the largest" in words
    assert "which is the largest" not in text(prefix="excluded")
    assert "spread evenly" not in text(synthetic_result(geometry=False))


def test_methods_say_whether_there_are_intervals():
    assert "95 % BCa" in text()
    assert ", as here." in text(synthetic_result(images=6))
    assert ", as here." not in text(synthetic_result(images=40))
    assert "No intervals are given." in text(synthetic_result(intervals=False))


def test_models_with_the_same_methods_share_one_paragraph():
    page = render([synthetic_result("first"), synthetic_result("second", seed=1)])
    assert page.count("Attention entropy is the mean") == 1
    other = synthetic_result("second", seed=1)
    other.config["prefix"] = "included"
    assert render([synthetic_result("first"), other]).count("Attention entropy is the mean") == 2


def test_the_machine_is_told_and_what_a_smaller_type_changed():
    facts = {"precision": "bfloat16", "deviation": {"head_kl": 0.004, "cka": 1e-4}}
    result = synthetic_result()
    told = replace(result, provenance=replace(result.provenance, **facts, processes=4))
    words = text(told)
    assert "in 4 processes; attention was measured" in words
    assert "computed in bfloat16" in words
    assert "cka 0.01 %, head_kl 0.4 %" in words
    assert "On the first images" not in text(result)
    assert "one in 4 was measured" in text(query_step=4)
    assert "one in" not in text(query_step=1)
