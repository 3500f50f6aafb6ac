"""Files as training frameworks write them: MMPretrain's models, and the shells around any."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from random_modules import random_vit
from test_official import measured

import attnprobe
from attnprobe.errors import CheckpointError, FormatError
from attnprobe.formats import unwrap

FOLDER = Path(__file__).parent / "official" / "mmpretrain"
FORMATS = {
    "vit": "mmpretrain-vit",
    "dinov2": "mmpretrain-vit",
    "swiglu": "mmpretrain-vit",
    "deit": "mmpretrain-vit",
    "mae": "mmpretrain-mae",
    "moco_v3": "mmpretrain-moco-v3",
    "beit": "mmpretrain-beit-masked",
    "swin": "mmpretrain-swin",
    "simmim_swin": "mmpretrain-simmim-swin",
    "swinv2": "mmpretrain-swinv2",
}


def opened(name, **options):
    with np.load(FOLDER / f"{name}.npz") as arrays:
        expected = dict(arrays)
    heads = int(expected["heads"]) or None
    return attnprobe.load(FOLDER / f"{name}.pth", heads=heads, **options), expected


def test_all_recorded_models_are_tested():
    assert {path.stem for path in FOLDER.glob("*.pth")} == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_equal_mmpretrains(name):
    loaded, expected = opened(name)
    assert loaded.spec.format == FORMATS[name]
    assert loaded.epoch == 3
    images = torch.from_numpy(expected["image"]).double() / 64 - 2
    outputs, _ = measured(loaded.module.double(), images)
    assert len(outputs) == sum(key.startswith("output_") for key in expected)
    for i, output in enumerate(outputs):
        scale = np.abs(expected[f"output_{i}"]).max()
        np.testing.assert_allclose(output.numpy(), expected[f"output_{i}"], atol=1e-6 * scale)


@pytest.mark.parametrize("name", FORMATS)
def test_every_tensor_of_the_file_is_in_the_ledger(name):
    ledger = opened(name)[0].ledger
    stored = set(torch.load(FOLDER / f"{name}.pth", weights_only=True)["state_dict"])
    used = {line.partition(" -> ")[0] for line in ledger.converted} | set(ledger.matched)
    dropped = {line.partition(": ")[0] for line in ledger.dropped}
    assert used | dropped == stored
    assert not used & dropped


def test_momentum_encoder_of_mmpretrain_is_a_part():
    base, other = opened("moco_v3")[0], opened("moco_v3", part="momentum_encoder")[0]
    name = "blocks.0.attn.qkv.weight"
    stored = torch.load(FOLDER / "moco_v3.pth", weights_only=True)["state_dict"]
    kept = stored["momentum_encoder.module.0.layers.0.attn.qkv.weight"]
    torch.testing.assert_close(other.module.state_dict()[name], kept)
    assert not torch.equal(base.module.state_dict()[name], kept)


@pytest.mark.parametrize(("name", "classes"), [("vit", 5), ("deit", 5), ("swin", 5), ("mae", 0)])
def test_heads_of_mmpretrain_are_taken_over(name, classes):
    assert opened(name)[0].module.num_classes == classes


def vit():
    return random_vit(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=5)


def renamed(change):
    return {change(name): tensor for name, tensor in vit().state_dict().items()}


def shelled(name):
    return re.sub(r"^blocks\.(\d)\.", r"blocks.\1._checkpoint_wrapped_module.", name)


LIGHTNING = {"pytorch-lightning_version": "2.2", "epoch": 3, "loops": {}, "callbacks": {}}
WRAPPED = {
    "ddp": {"state_dict": renamed(lambda name: f"module.{name}")},
    "compiled": renamed(lambda name: f"_orig_mod.{name}"),
    "compiled_ddp": {"model": renamed(lambda name: f"module._orig_mod.{name}")},
    "fsdp": {"model": renamed(lambda name: f"_fsdp_wrapped_module.{shelled(name)}")},
    "compiled_blocks": renamed(lambda name: re.sub(r"(blocks\.\d\.)", r"\1_orig_mod.", name)),
    "lightning_model": {**LIGHTNING, "state_dict": renamed(lambda name: f"model.{name}")},
    "lightning_net": {**LIGHTNING, "state_dict": renamed(lambda name: f"net.backbone.{name}")},
    "backbone": {"state_dict": renamed(lambda name: f"backbone.{name}")},
    "encoder": {"model": renamed(lambda name: f"encoder.{name}")},
    "averaged": renamed(lambda name: f"module.{name}") | {"n_averaged": torch.tensor(9)},
    "deepspeed": {
        "module": renamed(lambda name: name),
        "ds_version": "0.14",
        "ds_config": {},
        "global_steps": 7,
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_shells_are_taken_off(name, tmp_path):
    torch.save(WRAPPED[name], tmp_path / "a.pth")
    loaded = attnprobe.load(tmp_path / "a.pth")
    assert loaded.spec.format == "timm"
    for key, tensor in vit().state_dict().items():
        torch.testing.assert_close(loaded.module.state_dict()[key], tensor)


def test_the_ledger_keeps_the_files_own_names(tmp_path):
    torch.save(WRAPPED["fsdp"], tmp_path / "a.pth")
    converted = attnprobe.load(tmp_path / "a.pth").ledger.converted
    old = "_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.attn.qkv.weight"
    assert f"{old} -> blocks.0.attn.qkv.weight" in converted


AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict")


@pytest.mark.parametrize("key", AVERAGES)
def test_averaged_weights_are_a_part_that_is_named(key, tmp_path):
    doubled = {name: 2 * tensor for name, tensor in vit().state_dict().items()}
    torch.save({"state_dict": vit().state_dict(), key: doubled}, tmp_path / "a.pth")
    plain = attnprobe.load(tmp_path / "a.pth")
    assert any(key in line for line in plain.spec.assumed)
    taken = attnprobe.load(tmp_path / "a.pth", part=key)
    torch.testing.assert_close(taken.module.state_dict()["pos_embed"], doubled["pos_embed"])


def test_an_average_in_the_names_is_a_part(tmp_path):
    both = renamed(lambda name: f"online_model.{name}") | {
        f"ema_model.{name}": 2 * tensor for name, tensor in vit().state_dict().items()
    }
    torch.save(both, tmp_path / "a.pth")
    plain = attnprobe.load(tmp_path / "a.pth")
    taken = attnprobe.load(tmp_path / "a.pth", part="ema_model")
    name = "pos_embed"
    torch.testing.assert_close(plain.module.state_dict()[name], both[f"online_model.{name}"])
    torch.testing.assert_close(taken.module.state_dict()[name], both[f"ema_model.{name}"])


def test_names_that_collide_without_shells_are_refused():
    with pytest.raises(FormatError, match="one name"):
        unwrap(vit().state_dict() | renamed(lambda name: f"_orig_mod.{name}"))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"decay": 0.99, "shadow_params": [torch.ones(3)]}, "shadow_params"),
        ({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}}, "flat_param"),
        (
            {"module": {n: torch.ones(0) for n in vit().state_dict()}, "ds_version": "0.14"},
            "share of one process",
        ),
    ],
)
def test_weights_without_names_are_refused_with_what_to_do(content, cause, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=cause) as caught:
        attnprobe.load(tmp_path / "a.pth")
    assert caught.value.remedy
