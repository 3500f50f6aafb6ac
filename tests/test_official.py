"""Loaded checkpoints against what the official codes computed from the very same files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attnprobe.checkpoints import load

FOLDER = Path(__file__).parent / "official"
NAMES = sorted(path.stem for path in FOLDER.glob("*.pth"))
FORMATS = {
    "cae": "cae",
    "dinov2_chunked": "dinov2",
    "dinov2_registers": "dinov2",
    "dinov3": "dinov3",
    "dinov3_swiglu": "dinov3",
    "eva": "eva-pretrain",
    "eva02_clip": "eva02-clip",
    "eva02_finetuned": "eva02",
    "eva02_pretrain": "eva02-pretrain",
    "ijepa": "ijepa",
    "mae": "mae",
    "mae_finetuned": "timm",
    "mae_linear_probe": "mae-linear-probe",
    "maskfeat": "maskfeat",
    "clip": "clip",
    "open_clip": "open-clip",
    "aim": "aim",
    "aimv2": "aimv2",
    "moco_v3": "moco-v3",
    "simmim_vit": "simmim-vit",
    "simmim_vit_finetuned": "simmim-vit-finetuned",
    "simmim_swin": "simmim-swin",
    "simmim_swinv2": "simmim-swinv2",
    "swin": "swin",
    "swinv2": "swinv2",
    "dino": "dino",
    "beit": "beit",
    "beit_pretrain": "beit-pretrain",
}

# their positions fit any size, so that the size of the run has to be asked for
ANY_SIZE = ("dinov3", "dinov3_swiglu")


def record(name):
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def opened(name, expected):
    size = expected["image"].shape[2:] if name in ANY_SIZE else None
    return load(FOLDER / f"{name}.pth", heads=int(expected["heads"]) or None, img_size=size)


def blocks(module):
    if hasattr(module, "blocks"):
        return list(module.blocks)
    return [block for stage in module.layers for block in stage.blocks]


def measured(module, images):
    """Block outputs [images, tokens, channels] and softmax attention of every block."""
    outputs, attention = [], []
    for block in blocks(module):
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: attention.append(args[0]))
        block.register_forward_hook(
            lambda *args: outputs.append(args[2].flatten(1, -2) if args[2].ndim == 4 else args[2])
        )
    with torch.no_grad():
        module.forward_features(images)
    return outputs, attention


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_attention_equal_the_official_code(name):
    expected = record(name)
    loaded = opened(name, expected)
    assert loaded.spec.format == FORMATS[name]
    assert loaded.spec.input_size == expected["image"].shape[1:]
    assert not loaded.ledger.missing
    images = torch.from_numpy(expected["image"]).double() / 64 - 2
    outputs, attention = measured(loaded.module.double(), images)
    assert len(outputs) == sum(key.startswith("output_") for key in expected)
    for i, (output, weights) in enumerate(zip(outputs, attention, strict=True)):
        scale = np.abs(expected[f"output_{i}"]).max()
        np.testing.assert_allclose(output.numpy(), expected[f"output_{i}"], atol=1e-6 * scale)
        np.testing.assert_allclose(weights.numpy(), expected[f"attention_{i}"], atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_the_file_is_in_the_ledger(name):
    expected = record(name)
    loaded = opened(name, expected)
    parameters = {key for key, _ in loaded.module.named_parameters()}
    filled = {line.rpartition(" -> ")[2] for line in loaded.ledger.converted}
    assert filled | set(loaded.ledger.matched) == parameters
    assert len(loaded.ledger.matched) + len(loaded.ledger.converted) == len(parameters)
    assert all(": " in line for line in loaded.ledger.dropped)


def test_attention_in_the_records_is_far_from_uniform():
    for name in NAMES:
        for key, weights in record(name).items():
            if key.startswith("attention_"):
                assert weights.max(-1).mean() > 2 / weights.shape[-1], (name, key)


def test_all_releases_are_recorded():
    assert set(NAMES) == set(FORMATS)
