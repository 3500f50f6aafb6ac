"""What the file tells beside its shapes: names in memory, the trained model, the input size."""

import json

import pytest
import timm
import torch
import transformers
from random_modules import randomised
from safetensors.torch import save_file

from attnprobe.checkpoints import load
from attnprobe.errors import CheckpointError

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
IN_MEMORY = {
    "vit": ("ViT", "ForImageClassification", {}),
    "deit": ("DeiT", "Model", {}),
    "mae": ("ViTMAE", "ForPreTraining", {"decoder_num_hidden_layers": 1}),
    "ijepa": ("IJepa", "Model", {}),
    "dinov2": ("Dinov2", "Model", {}),
    "registers": ("Dinov2WithRegisters", "Model", {}),
    "beit": ("Beit", "ForImageClassification", {"use_relative_position_bias": True}),
    "beit_shared": ("Beit", "Model", {"use_shared_relative_position_bias": True}),
}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_names_in_memory_are_those_that_are_saved(tmp_path, name):
    family, head, more = IN_MEMORY[name]
    config = getattr(transformers, f"{family}Config")(**SMALL, **more)
    module = randomised(getattr(transformers, family + head)(config))
    module.save_pretrained(tmp_path / "saved")
    torch.save({"state_dict": module.state_dict(), "epoch": 1}, tmp_path / "memory.pth")
    (tmp_path / "saved" / "config.json").unlink()
    saved, memory = load(tmp_path / "saved"), load(tmp_path / "memory.pth")
    assert memory.spec.format == saved.spec.format
    assert memory.spec.model_args == saved.spec.model_args
    for key, tensor in saved.module.state_dict().items():
        assert torch.equal(tensor, memory.module.state_dict()[key]), key


def test_swins_names_in_memory(tmp_path):
    small = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2]}
    config = transformers.SwinConfig(**small, num_heads=[1, 2], window_size=4)
    module = randomised(transformers.SwinModel(config))
    module.save_pretrained(tmp_path / "saved")
    torch.save(module.state_dict(), tmp_path / "memory.pth")
    saved, memory = load(tmp_path / "saved"), load(tmp_path / "memory.pth")
    for key, tensor in saved.module.named_parameters():
        assert torch.equal(tensor, memory.module.get_parameter(key)), key


def vit(**options):
    return randomised(timm.create_model("test_vit", num_classes=0, **options))


def test_the_size_that_is_asked_for_is_the_size_it_was_trained_at(tmp_path):
    module = vit(img_size=(64, 256))  # 4 x 16 patches, which could be 8 x 8
    torch.save(module.state_dict(), tmp_path / "a.pth")
    guessed = load(tmp_path / "a.pth", heads=2)
    assert guessed.spec.input_size == (3, 128, 128)
    assert any("taken as a square grid of 8 x 8" in line for line in guessed.spec.assumed)
    loaded = load(tmp_path / "a.pth", heads=2, img_size=(64, 256))
    assert loaded.ledger.resampled == ()
    images = torch.rand(1, 3, 64, 256)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))


def test_a_grid_that_is_not_square_asks_for_the_size(tmp_path):
    torch.save(vit(img_size=(64, 112)).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "a.pth", heads=2)
    assert "--img-size" in caught.value.remedy
    assert load(tmp_path / "a.pth", heads=2, img_size="64x112").spec.input_size == (3, 64, 112)


def test_timms_training_script_names_its_model(tmp_path):
    module = vit()
    torch.save({"epoch": 3, "arch": "test_vit", "state_dict": module.state_dict()}, tmp_path / "a")
    loaded = load(tmp_path / "a")
    assert loaded.spec.architecture == "test_vit"
    images = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))


def test_a_model_trained_under_a_name_with_other_arguments_is_read_from_shapes(tmp_path):
    state = vit(depth=2).state_dict()
    torch.save({"epoch": 3, "arch": "test_vit", "state_dict": state}, tmp_path / "a.pth")
    assert load(tmp_path / "a.pth", heads=2).spec.model_args["depth"] == 2


def test_channels_are_the_weights(tmp_path):
    save_file(vit(in_chans=1).state_dict(), tmp_path / "model.safetensors")
    told = {"architecture": "test_vit", "num_classes": 0, "model_args": {"in_chans": 1}}
    told["pretrained_cfg"] = {"input_size": [3, 160, 160]}
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert load(tmp_path).spec.input_size == (1, 160, 160)


@pytest.mark.parametrize("head", ["classifier", "fc", "proj_head.0", "projector.2"])
def test_heads_of_other_tasks_are_dropped(tmp_path, head):
    state = vit().state_dict() | {f"{head}.weight": torch.ones(7, 64)}
    torch.save(state, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", heads=2)
    assert loaded.ledger.dropped == (f"{head}.weight: head of another task",)
