"""Loading: everything from shapes, every tensor accounted for, and nothing silently random."""

import hashlib
import json
from functools import partial

import pytest
import timm
import torch
from random_modules import random_vit, randomised
from safetensors.torch import save_file
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import nn

from attnprobe.checkpoints import load
from attnprobe.errors import CheckpointError, PartialLoadError

ODD = {"img_size": 40, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 1}
SHAPES = {
    "plain": {"mlp_ratio": 2.5, "num_classes": 7},
    "no class token": {"class_token": False, "global_pool": "avg", "num_classes": 0},
    "registers": {"reg_tokens": 3, "no_embed_class": True, "num_classes": 0},
    "registers with places": {"reg_tokens": 2, "num_classes": 0},
    "layer scale, no bias": {"init_values": 0.1, "qkv_bias": False, "num_classes": 0},
    "pooled": {"global_pool": "avg", "num_classes": 3},
    "pre-norm": {"pre_norm": True, "num_classes": 0, "norm_layer": partial(nn.LayerNorm, eps=1e-5)},
    "query norm": {"qk_norm": True, "embed_dim": 48, "num_heads": 4, "num_classes": 0},
    "grey, patch 5": {"in_chans": 1, "patch_size": 5, "num_classes": 0},
}


def save(module, path):
    torch.save({"model": module.state_dict(), "epoch": 1}, path)
    return path


def same_outputs(loaded, module):
    images = torch.randn(2, *loaded.spec.input_size)
    with torch.no_grad():
        ours, theirs = loaded.module.forward_features(images), module.forward_features(images)
    return torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", SHAPES)
def test_vit_shapes_give_back_the_module(tmp_path, kind):
    module = random_vit(**{**ODD, **SHAPES[kind]})
    loaded = load(save(module, tmp_path / "a.pth"))
    assert set(loaded.ledger.matched) == set(module.state_dict())
    assert not loaded.ledger.dropped
    assert not loaded.ledger.missing
    assert same_outputs(loaded, module)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (VisionTransformerDistilled, {**ODD, "num_classes": 5}),
        (Beit, {**ODD, "num_heads": 4, "use_rel_pos_bias": True, "use_abs_pos_emb": False}),
        (Beit, {**ODD, "init_values": 0.1, "global_pool": "token", "num_classes": 0}),
        (
            SwinTransformer,
            {
                "img_size": 96,
                "embed_dim": 24,
                "depths": (2, 1),
                "num_heads": (2, 6),
                "window_size": 12,
                "num_classes": 4,
            },
        ),
    ],
)
def test_other_families_give_back_the_module(tmp_path, family, options):
    module = randomised(family(**options))
    loaded = load(save(module, tmp_path / "a.pth"))
    assert type(loaded.module) is family
    assert same_outputs(loaded, module)


def test_swin_v2_needs_its_window_and_takes_it_from_metadata(tmp_path):
    options = {"img_size": 64, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
    module = randomised(SwinTransformerV2(**options, window_size=4, num_classes=0))
    with pytest.raises(CheckpointError, match="window size"):
        load(save(module, tmp_path / "a.pth"))
    own = {"model_args": {"window_size": 4}, "input_size": [3, 64, 64]}
    path = tmp_path / "a.safetensors"
    save_file(module.state_dict(), path, {"attnprobe": json.dumps(own)})
    assert same_outputs(load(path), module)


def test_the_module_is_frozen_fp32_and_hashed(tmp_path):
    module = random_vit(**ODD, num_classes=0)
    path = save(module.half(), tmp_path / "half.pth")
    loaded = load(path)
    assert not loaded.module.training
    assert {(p.dtype, p.requires_grad) for p in loaded.module.parameters()} == {
        (torch.float32, False)
    }
    assert loaded.spec.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name].float()), name


def test_heads_are_assumed_stated_given_or_refused(tmp_path):
    module = random_vit(**{**ODD, "embed_dim": 128, "num_heads": 4, "num_classes": 0})
    path = save(module, tmp_path / "a.pth")
    assumed = load(path)
    assert assumed.module.blocks[0].attn.num_heads == 2
    assert any("--heads" in sentence for sentence in assumed.spec.assumed)
    assert same_outputs(load(path, heads=4), module)
    with pytest.raises(CheckpointError, match="128 is not divisible by 5"):
        load(path, heads=5)
    narrow = random_vit(**{**ODD, "embed_dim": 48, "num_heads": 3, "num_classes": 0})
    with pytest.raises(CheckpointError, match="not a multiple of 64") as caught:
        load(save(narrow, tmp_path / "b.pth"))
    assert "--heads" in caught.value.remedy
    assert same_outputs(load(tmp_path / "b.pth", heads=3), narrow)


def test_heads_that_contradict_the_file_are_refused(tmp_path):
    module = randomised(Beit(**{**ODD, "num_heads": 4}, use_rel_pos_bias=True))
    with pytest.raises(CheckpointError, match="has 4 heads"):
        load(save(module, tmp_path / "a.pth"), heads=2)


def test_own_metadata_says_what_shapes_cannot_and_nothing_more(tmp_path):
    module = random_vit(**{**ODD, "num_heads": 4, "num_classes": 0})
    own = {
        "architecture": "vit_base_patch16_224",
        "model_args": {"depth": 12},
        "name": "mine",
        "heads": 4,
        "objective": "mim",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "input_size": [3, 224, 224],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    path = tmp_path / "a.safetensors"
    save_file(module.state_dict(), path, {"attnprobe": json.dumps(own)})
    loaded = load(path)
    assert same_outputs(loaded, module)
    spec = loaded.spec
    assert (spec.name, spec.objective, spec.mean) == ("mine", "mim", (0.1, 0.2, 0.3))
    assert (spec.std, spec.interpolation, spec.crop_pct) == ((0.4, 0.5, 0.6), "bilinear", 1.0)
    assert spec.input_size == (3, 40, 40)
    assert len(spec.assumed) == 1  # its own size is not that of the positions
    assert "taken as a square grid of 5 x 5" in spec.assumed[0]


def test_a_missing_block_is_named(tmp_path):
    state = random_vit(**ODD, num_classes=0).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.")}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(PartialLoadError, match=r"whole blocks are missing \(blocks\.1\).*more"):
        load(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name",
    [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "norm.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.2.mlp.fc2.weight",
        "blocks.1.norm1.bias",
    ],
)
def test_any_single_missing_weight_is_an_error_that_names_it(tmp_path, name):
    state = random_vit(**ODD, num_classes=0).state_dict()
    del state[name]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(PartialLoadError, match=name.replace(".", r"\.")) as caught:
        load(tmp_path / "a.pth")
    assert caught.value.remedy


def test_left_over_and_misshapen_tensors_are_errors(tmp_path):
    state = random_vit(**ODD, num_classes=0).state_dict()
    torch.save({**state, "blocks.1.attn.extra": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises(PartialLoadError, match=r"no place in the model: blocks\.1\.attn\.extra"):
        load(tmp_path / "a.pth")
    torch.save({**state, "blocks.1.norm1.bias": torch.ones(63)}, tmp_path / "b.pth")
    with pytest.raises(PartialLoadError, match=r"blocks\.1\.norm1\.bias \[63\], expected \[64\]"):
        load(tmp_path / "b.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    module = random_vit(**ODD, num_classes=0)
    module.blocks[1].mlp.fc1.weight.data[3, 4] = value
    with pytest.raises(CheckpointError, match=r"1 weights hold NaN.*blocks\.1\.mlp\.fc1\.weight"):
        load(save(module, tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit3_small_patch16_224",
        "vit_small_patch14_dinov2",
        "vit_small_patch14_reg4_dinov2",
        "beit_base_patch16_224",
        "swin_tiny_patch4_window7_224",
        "deit_tiny_distilled_patch16_224",
    ],
)
def test_published_sizes_are_named(tmp_path, name):
    module = timm.create_model(name)
    loaded = load(save(module, tmp_path / "a.pth"))
    assert loaded.spec.architecture == name
    assert set(loaded.ledger.matched) == set(module.state_dict())


def test_a_head_that_does_not_fit_is_dropped_by_name(tmp_path):
    state = random_vit(**ODD, num_classes=5).state_dict()
    torch.save({**state, "head.weight": torch.ones(5, 32)}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth")
    reasons = [line.partition(":")[0] for line in loaded.ledger.dropped]
    assert reasons == ["head.weight", "head.bias"]
    assert isinstance(loaded.module.head, nn.Identity)
