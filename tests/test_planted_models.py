"""Real models with planted differences get the right verdicts, through the whole tool."""

import copy

import numpy as np
import pytest
import timm
import torch

import attnprobe
from attnprobe.claims import CONTRADICTED, SUPPORTED, UNDECIDED

LAYERS, HEADS, SIDE = 9, 3, 96
FAST = {"resamples": 1000, "permutations": 1000}


def original():
    """A vision transformer whose heads look at different places: strong queries and keys."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=SIDE, depth=LAYERS, num_classes=0
    )
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[: 2 * 192] *= 12
    return model.eval()


def sharpened(model, layers, factor=3.0):
    """Attention whose logits are larger in some layers."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for layer in layers:
            changed.blocks[layer].attn.qkv.weight[:192] *= factor
            changed.blocks[layer].attn.qkv.bias[:192] *= factor
    return changed


def duplicated(model, layers):
    """Layers whose heads are all like the first."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for layer in layers:
            weight = changed.blocks[layer].attn.qkv.weight.view(3, HEADS, 64, 192)
            weight[:2] = weight[:2, :1].clone()
    return changed


def shuffled(model, order):
    changed = copy.deepcopy(model)
    changed.blocks = torch.nn.Sequential(*(changed.blocks[at] for at in order))
    return changed


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = torch.tensor(rng.normal(size=(64, 3, 8, 8)), dtype=torch.float32)
    return torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")


@pytest.fixture(scope="module")
def measured(images):
    model = original()
    variants = {
        "plain": model,
        "sharp": sharpened(model, (3, 4)),
        "alike": duplicated(model, (6, 7, 8)),
        "shuffled": shuffled(model, (0, 5, 2, 3, 4, 1, 6, 7, 8)),
    }
    return {name: attnprobe.analyze(each, images) for name, each in variants.items()}


def verdict(found, claim, pair=False, model=0):
    rows = found.tables["verdicts"].query("claim == @claim")
    rows = rows[(rows.model_b >= 0) if pair else ((rows.model_b < 0) & (rows.model_a == model))]
    return rows.verdict.iloc[0]


def by_layer(found, metric):
    query = "metric == @metric and scale == 'value' and alignment == 'layer'"
    return found.tables["differences"].query(query).set_index("position")


def test_two_copies_measured_apart_are_not_decided(measured, images):
    again = attnprobe.analyze(original(), images, batch_size=5)
    found = attnprobe.compare([measured["plain"], again], **FAST)
    pairs = found.tables["verdicts"].query("model_b >= 0 and claim != 'models_alike'")
    assert set(pairs.verdict) == {UNDECIDED}
    assert (found.tables["differences"].q > 0.05).all()
    diagonal = found.tables["cross_cka"].query("layer_a == layer_b")
    assert diagonal.value.tolist() == pytest.approx([1] * LAYERS, abs=1e-4)


def test_sharpened_layers_are_the_first_to_differ_and_have_less_entropy(measured):
    found = attnprobe.compare([measured["sharp"], measured["plain"]], **FAST)
    entropy = by_layer(found, "entropy")
    assert (entropy.value[:3] == 0).all()
    assert entropy.high[[3, 4]].max() < 0
    assert entropy.q[[3, 4]].max() < 0.01
    assert entropy.value.idxmin() in (3, 4)


def test_duplicated_heads_collapse_diversity_in_their_layers(measured):
    found = attnprobe.compare([measured["alike"], measured["plain"]], **FAST)
    assert verdict(found, "diversity_collapses", model=0) == SUPPORTED
    assert verdict(found, "diversity_collapses", model=1) == CONTRADICTED
    assert verdict(found, "diversity_collapses", pair=True) == SUPPORTED
    kl = by_layer(found, "head_kl")
    assert (kl.value[:6] == 0).all()
    assert kl.value_a[6:].max() < 1e-4
    assert kl.high[6:].max() < 0
    spread = found.tables["head_sets"].query("metric == 'distance' and scale == 'value'")
    assert spread.set_index("layer_a").spread_a[6:].max() < 1e-3


def test_shuffled_layers_differ_from_where_the_order_changes(measured):
    found = attnprobe.compare([measured["shuffled"], measured["plain"]], **FAST)
    distance = by_layer(found, "distance")
    assert distance.value[0] == 0
    assert distance.value[1] != 0
    # a block brings its attention along: block 5 stands second now
    similar = found.tables["cross_cka"].set_index(["layer_a", "layer_b"]).value
    assert similar[0, 0] == pytest.approx(1, abs=1e-4)
    assert similar[1, 1] < 1 - 1e-4
