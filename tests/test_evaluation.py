"""Frozen features, nearest neighbours and the linear probe, against plain float64 references."""

import io
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import minimize

from attnprobe.datasets import open_pictures
from attnprobe.errors import AttnprobeError
from attnprobe.evaluation import evaluate, features, knn, linear_probe
from attnprobe.evaluation.linear import _fit
from attnprobe.evaluation.ranking import top_k
from attnprobe.types import CheckpointSpec

SPEC = CheckpointSpec("small", "vit", input_size=(3, 32, 32), crop_pct=1.0)
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def clouds(n, d=6, classes=7, *, seed=0, spread=1.0):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, d))
    labels = generator.integers(0, classes, n)
    return (centres[labels] + spread * generator.normal(size=(n, d))).astype(np.float32), labels


def plain_knn(train, labels, test, target, k, temperature):
    """Vote of the nearest, one image at a time."""
    train, test = (x.astype(np.float64) for x in (train, test))
    train /= np.maximum(np.linalg.norm(train, axis=1, keepdims=True), 1e-12)
    test /= np.maximum(np.linalg.norm(test, axis=1, keepdims=True), 1e-12)
    hits = {1: 0, 5: 0}
    for row, wanted in zip(test, target, strict=True):
        similarity = train @ row
        nearest = sorted(range(len(train)), key=lambda i: (-similarity[i], i))[:k]
        votes = {}
        for i in nearest:
            votes[labels[i]] = votes.get(labels[i], 0) + np.exp(similarity[i] / temperature)
        ranked = sorted(votes, key=lambda name: (-votes[name], name))
        for k_best in hits:
            hits[k_best] += wanted in ranked[:k_best]
    return {f"knn_top{k_best}": count / len(test) for k_best, count in hits.items()}


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (500, 0.3)])
def test_knn_equals_the_plain_vote(k, temperature, monkeypatch):
    from attnprobe.evaluation import neighbours

    train, test = clouds(150), clouds(60, seed=1)
    expected = plain_knn(*train, *test, min(k, 150), temperature)
    assert knn(*train, *test, k=k, temperature=temperature) == pytest.approx(expected)
    monkeypatch.setattr(neighbours, "_AT_ONCE", 7 * 150)  # seven images at a time
    assert knn(*train, *test, k=k, temperature=temperature) == pytest.approx(expected)
    assert 0.2 < expected["knn_top1"] < 1


@settings(max_examples=40, deadline=None)
@given(
    train=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 3)), min_size=1, max_size=12),
    test=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 4)), min_size=1, max_size=6),
    k=st.integers(1, 14),
)
def test_ties_are_broken_as_documented(train, test, k):
    axes = {"x": [1.0, 0, 0], "y": [0, 1.0, 0], "z": [0, 0, 0.0]}  # many equal similarities
    sides = []
    for rows in (train, test):
        x, labels = zip(*rows, strict=True)
        sides += [np.array([axes[name] for name in x], dtype=np.float32), np.array(labels)]
    k = min(k, len(train))
    assert knn(*sides, k=k) == pytest.approx(plain_knn(*sides, k, 0.07))


def test_classes_keep_their_numbers():
    x, labels = clouds(80)
    y, target = clouds(40, seed=1)
    numbers = np.array([3, 900, 17, 5, 44, 2, 81])
    assert knn(x, numbers[labels], y, numbers[target]) == knn(x, labels, y, target)
    assert linear_probe(x, numbers[labels], y, numbers[target])["linear_top1"] == pytest.approx(
        linear_probe(x, labels, y, target)["linear_top1"]
    )
    assert knn(x, labels, y, target + 100) == {"knn_top1": 0.0, "knn_top5": 0.0}
    assert linear_probe(x, labels, y, target + 100)["linear_top5"] == 0.0


def plain_loss(flat, x, labels, classes, l2):
    weight = flat[: x.shape[1] * classes].reshape(x.shape[1], classes)
    logits = x @ weight + flat[weight.size :]
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(x)), labels]).mean() + l2 / 2 * (weight**2).sum()
    wrong = p - np.eye(classes)[labels]
    slopes = [(x.T @ wrong / len(x) + l2 * weight).ravel(), wrong.mean(0)]
    return loss, np.concatenate(slopes)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_probe_is_at_the_optimum_that_scipy_finds(l2):
    x, labels = clouds(200, classes=4)
    x = x.astype(np.float64)
    x[:, 3] = 5 * x[:, 2] + 0.01 * x[:, 3]  # badly conditioned
    x = (x - x.mean(0)) / x.std(0)
    found = minimize(
        plain_loss,
        np.zeros(6 * 4 + 4),
        args=(x, labels, 4, l2),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 5000},
    )
    weight, bias, slope = _fit(torch.tensor(x), torch.tensor(labels), 4, l2=l2, steps=500)
    assert slope < 1e-5
    mine = np.concatenate([weight.numpy().ravel(), bias.numpy()])
    assert mine == pytest.approx(found.x, abs=2e-3)
    assert plain_loss(mine, x, labels, 4, l2)[0] <= found.fun + 1e-9


def test_the_probe_does_not_mind_scale_and_shift_of_channels():
    x, labels = clouds(150)
    y, target = clouds(80, seed=1)
    scale, shift = np.array([1e-3, 1, 50, 1e3, 2, 7]), np.array([3, -8, 1e2, 0, 1, 5])
    one = linear_probe(x, labels, y, target)
    assert linear_probe(x * scale + shift, labels, y * scale + shift, target) == one
    assert one["linear_converged"] == 1
    assert one["linear_top1"] > 0.4
    assert linear_probe(x, labels, y, target, steps=2)["linear_converged"] == 0


@pytest.mark.parametrize("score", [knn, linear_probe])
def test_degenerate_sets_give_numbers(score):
    x, labels = clouds(20)
    y, target = clouds(10, seed=1)
    one = score(x, np.full(20, 3), y, np.array([3] * 4 + [5] * 6))
    assert [value for name, value in one.items() if "top" in name] == [0.4, 0.4]
    constant = score(np.full((20, 4), 2.5), labels, np.full((10, 4), 2.5), target)
    first = target == (np.bincount(labels).argmax() if score is linear_probe else 0)
    assert all(np.isfinite(value) for value in constant.values())
    assert 0 <= constant[next(iter(constant))] <= max(first.mean(), 0.5)
    with_constant = score(np.c_[x, np.zeros(20)], labels, np.c_[y, np.zeros(10)], target)
    assert with_constant == pytest.approx(score(x, labels, y, target))
    single = score(x[:1], labels[:1], y, target)
    assert single[next(iter(single))] == (target == labels[0]).mean()


@pytest.mark.parametrize("score", [knn, linear_probe])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.nan, r"1 of 20 rows of the training features are not finite .* row 4"),
        (2, np.inf, r"1 of 10 rows of the test features are not finite .* row 4"),
        (1, None, r"training features have shape \(20, 6\) and labels \(19,\)"),
        (3, 0.5, "test labels are torch.float64"),
    ],
)
def test_what_cannot_be_compared_is_refused(score, place, value, message):
    sides = [*clouds(20), *clouds(10, seed=1)]
    if place in (0, 2):
        sides[place] = sides[place].copy()
        sides[place][4, 2] = value
    else:
        sides[place] = sides[place][:-1] if value is None else sides[place] + value
    with pytest.raises(AttnprobeError, match=message) as caught:
        score(*sides)
    assert caught.value.remedy


def test_other_refusals():
    sides = [*clouds(20), *clouds(10, d=5, seed=1)]
    for score in (knn, linear_probe):
        with pytest.raises(AttnprobeError, match="6 channels, test features 5"):
            score(*sides)
    with pytest.raises(AttnprobeError, match="k is 0"):
        knn(*sides, k=0)
    with pytest.raises(AttnprobeError, match="temperature 0"):
        knn(*sides, temperature=0)
    with pytest.raises(AttnprobeError, match="l2 is 0"):
        linear_probe(*sides, l2=0)


def test_ranks_of_equal_scores():
    scores = torch.tensor([[1.0, 1, 0, -torch.inf]] * 4)
    assert top_k(scores, torch.tensor([0, 1, 2, 3])) == (0.25, 0.75)


def encode(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def write(path, count=24, *, seed=0, classes=("a", "b", "c"), broken=()):
    """Write images whose brightness is their class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    files = [
        encode((generator.integers(0, 60, (32, 32, 3)) + 90 * label).astype(np.uint8))
        for label in labels
    ]
    files = [b"no" if index in broken else data for index, data in enumerate(files)]
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), dtype=np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=labels,
        classes=np.array(classes),
    )
    return open_pictures(path)


@pytest.fixture
def sets(tmp_path):
    return write(tmp_path / "train.npz"), write(tmp_path / "test.npz", 9, seed=1, broken=(2,))


def model(name="vit_tiny_patch16_224", classes=0, **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=classes, **{**TINY, **options})


def images(pictures, indices):
    pixels = np.stack([np.asarray(pictures.read(index)) for index in indices])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (SPEC.mean, SPEC.std))
    return (x - mean) / std


def test_features_of_a_vit_by_hand(sets):
    encoder = model().eval()
    kept = [0, 1, 3, 4, 5, 6, 7, 8]
    with torch.no_grad():
        tokens = encoder.forward_features(images(sets[1], kept))
        head = encoder.forward_head(tokens, pre_logits=True)
    expected = {"patches": tokens[:, 1:].mean(1), "cls": tokens[:, 0], "head": head}
    for pool, wanted in expected.items():
        found, labels = features(encoder, sets[1], SPEC, pool=pool, batch=3)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        assert labels.tolist() == [index % 3 for index in kept]
    found, labels = features(encoder, sets[0], SPEC, limit=6)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(found, features(encoder, sets[0], SPEC)[0][::4])


def test_features_of_a_swin_are_means_over_places(sets):
    encoder = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=0,
        img_size=32,
        window_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
    ).eval()
    with torch.no_grad():
        places = encoder.forward_features(images(sets[0], range(24)))
    assert places.shape == (24, 4, 4, 16)
    found, _ = features(encoder, sets[0], SPEC)
    torch.testing.assert_close(found, places.flatten(1, 2).mean(1), atol=1e-5, rtol=1e-4)
    with pytest.raises(AttnprobeError, match="no CLS token"):
        features(encoder, sets[0], SPEC, pool="cls")


def test_features_leave_model_and_generators_as_they_were(sets):
    encoder = model(drop_path_rate=0.5, proj_drop_rate=0.5).train()
    encoder.blocks[0].eval()
    modes = [module.training for module in encoder.modules()]
    state, legacy = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    expected = features(encoder, sets[0], SPEC)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert [module.training for module in encoder.modules()] == modes
    assert torch.is_grad_enabled()
    assert not expected.requires_grad
    assert torch.equal(features(encoder, sets[0], SPEC, workers=1)[0], expected)
    assert torch.equal(torch.get_rng_state(), state)
    encoder.forward_features = None
    with pytest.raises(TypeError):
        features(encoder, sets[0], SPEC)
    assert [module.training for module in encoder.modules()] == modes


def test_features_that_cannot_be_had_are_refused(sets, tmp_path):
    with pytest.raises(AttnprobeError, match="unknown pooling 'max'"):
        features(model(), sets[0], SPEC, pool="max")
    with pytest.raises(AttnprobeError, match="limit of 0"):
        features(model(), sets[0], SPEC, limit=0)
    with pytest.raises(AttnprobeError, match=r"no image of .* can be read"):
        features(model(), write(tmp_path / "bad.npz", 3, broken=(0, 1, 2)), SPEC)


def test_evaluate_gives_every_score(sets):
    found = evaluate(model(), *sets, SPEC, k=5)
    names = {"knn_top1", "knn_top5", "linear_top1", "linear_top5", "linear_converged"}
    assert found.keys() == names
    assert all(type(value) is float for value in found.values())
    assert found["linear_top1"] == 1  # brightness is the class
    assert found == evaluate(model(), *sets, SPEC, k=5, device="cpu", batch=24)
    own = evaluate(model(classes=3), *sets, SPEC)
    assert own.keys() == names | {"top1", "top5"}
    assert own["top5"] == 1
    assert evaluate(model(classes=5), *sets, SPEC).keys() == names


def test_the_own_classifier_is_scored(sets):
    encoder = model(classes=3).eval()
    kept = [0, 1, 3, 4, 5, 6, 7, 8]
    with torch.no_grad():
        hits = encoder(images(sets[1], kept)).argmax(1) == torch.tensor(kept) % 3
    assert evaluate(encoder, *sets, SPEC)["top1"] == pytest.approx(hits.double().mean().item())


def test_classes_are_matched_by_name(sets, tmp_path):
    test = write(tmp_path / "bright.npz", 9, seed=1)
    swapped = replace(test, labels=(test.labels + 1) % 3, classes=("c", "a", "b"))
    assert evaluate(model(), sets[0], swapped, SPEC)["linear_top1"] == 1
    other = replace(test, classes=("a", "b", "x"))
    with pytest.raises(AttnprobeError, match="has the class 'x', which"):
        evaluate(model(), sets[0], other, SPEC)
    bare = replace(test, labels=None, classes=())
    with pytest.raises(AttnprobeError, match="has no labels"):
        evaluate(model(), sets[0], bare, SPEC)
