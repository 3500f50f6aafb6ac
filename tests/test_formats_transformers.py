"""Models of the transformers library, saved by it, opened by name: every block agrees."""

import json
import shutil

import pytest
import torch
import transformers
from framework_signs import SIGNS

import attnprobe
from attnprobe.errors import CheckpointError, FormatError
from attnprobe.formats import formats, identify, unwrap

PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSES = {"num_labels": 5}
TABLE = {"use_relative_position_bias": True}
DECODER = {
    "mask_ratio": 0.0,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
TOWERS = {"vision_config": PLAIN, "text_config": TEXT}
SHARED = {
    "use_shared_relative_position_bias": True,
    "use_absolute_position_embeddings": True,
    "use_mask_token": True,
    "vocab_size": 11,
}
# class, its configuration, where the encoder lies, the format
CASES = {
    "vit": ("ViTForImageClassification", PLAIN | CLASSES, "vit", "transformers-vit"),
    "vit_tanh": ("ViTModel", PLAIN | {"hidden_act": "gelu_new"}, "", "transformers-vit"),
    "vit_without_biases": ("ViTModel", PLAIN | {"qkv_bias": False}, "", "transformers-vit"),
    "vit_masked": ("ViTForMaskedImageModeling", PLAIN, "vit", "transformers-vit-masked"),
    "deit": (
        "DeiTForImageClassificationWithTeacher",
        PLAIN | CLASSES,
        "deit",
        "transformers-deit",
    ),
    "deit_one_head": ("DeiTForImageClassification", PLAIN | CLASSES, "deit", "transformers-deit"),
    "mae": ("ViTMAEForPreTraining", PLAIN | DECODER, "vit", "transformers-mae"),
    "ijepa": ("IJepaForImageClassification", PLAIN | CLASSES, "ijepa", "transformers-ijepa"),
    "beit": ("BeitForImageClassification", PLAIN | CLASSES | TABLE, "beit", "transformers-beit"),
    "beit_plain": (
        "BeitModel",
        PLAIN | {"use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0},
        "",
        "transformers-beit",
    ),
    "beit_masked": (
        "BeitForMaskedImageModeling",
        PLAIN | SHARED,
        "beit",
        "transformers-beit-masked",
    ),
    "data2vec": (
        "Data2VecVisionForImageClassification",
        PLAIN | CLASSES | TABLE,
        "data2vec_vision",
        "transformers-data2vec",
    ),
    "dinov2": (
        "Dinov2ForImageClassification",
        PLAIN | CLASSES,
        "dinov2",
        "transformers-dinov2",
    ),
    "dinov2_swiglu": ("Dinov2Model", PLAIN | {"use_swiglu_ffn": True}, "", "transformers-dinov2"),
    "dinov2_registers": ("Dinov2WithRegistersModel", PLAIN, "", "transformers-dinov2"),
    "dinov3": ("DINOv3ViTModel", PLAIN | {"num_register_tokens": 4}, "", "transformers-dinov3"),
    "dinov3_gated": (
        "DINOv3ViTModel",
        PLAIN
        | {
            "num_register_tokens": 2,
            "use_gated_mlp": True,
            "hidden_act": "silu",
            "rope_theta": 50.0,
            "key_bias": True,
        },
        "",
        "transformers-dinov3",
    ),
    "clip": (
        "CLIPModel",
        TOWERS | {"projection_dim": 16},
        "vision_model",
        "transformers-clip",
    ),
    "clip_gelu": ("CLIPVisionModel", PLAIN | {"hidden_act": "gelu"}, "", "transformers-clip"),
    "siglip": ("SiglipModel", TOWERS, "vision_model", "transformers-siglip"),
    "siglip_vision": ("SiglipVisionModel", PLAIN, "", "transformers-siglip"),
    "swin": ("SwinForImageClassification", WINDOWS | CLASSES, "swin", "transformers-swin"),
    "swin_masked": ("SwinForMaskedImageModeling", WINDOWS, "swin", "transformers-swin-masked"),
    "swinv2": ("Swinv2ForImageClassification", WINDOWS | CLASSES, "swinv2", "transformers-swinv2"),
    "swinv2_masked": (
        "Swinv2ForMaskedImageModeling",
        WINDOWS | {"pretrained_window_sizes": [6, 3]},
        "swinv2",
        "transformers-swinv2-masked",
    ),
}


def built(name):
    """The official model with every parameter random, and its encoder."""
    kind, arguments, inner, _ = CASES[name]
    official = getattr(transformers, kind)
    model = official(official.config_class(**arguments))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            spread = 2 * parameter[0].numel() ** -0.5 if parameter.ndim in (2, 4) else 0.5
            parameter.copy_(float("norm" in key and key.endswith("weight")) + spread * noise)
    return model.eval(), model.get_submodule(inner) if inner else model


def outputs(blocks, run):
    """What every block gives out, [images, tokens, channels]."""
    found = []

    def keep(_, __, output):
        output = output[0] if isinstance(output, tuple) else output
        found.append(output.flatten(1, -2) if output.ndim == 4 else output)

    hooks = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return found


def ours(module):
    if hasattr(module, "blocks"):
        return list(module.blocks)
    return [block for stage in module.layers for block in stage.blocks]


def theirs(encoder):
    return [module for module in encoder.modules() if type(module).__name__.endswith("Layer")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a case, written once by the library itself."""
    made = {}

    def save(name):
        if name not in made:
            model, encoder = built(name)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = folder, encoder
        return made[name]

    return save


def agree(loaded, encoder, **more):
    images = torch.randn(1, *loaded.spec.input_size, dtype=torch.double)
    found = outputs(ours(loaded.module), lambda: loaded.module.double().forward_features(images))
    blocks = theirs(encoder)[: len(ours(loaded.module))]
    expected = outputs(blocks, lambda: encoder.double()(pixel_values=images, **more))
    encoder.float()
    assert len(found) == len(expected) == len(ours(loaded.module))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_blocks_equal_the_librarys(saved, name):
    folder, encoder = saved(name)
    loaded = attnprobe.load(folder)
    assert loaded.spec.format == CASES[name][3]
    assert not any("eps" in line or "GELU" in line for line in loaded.spec.assumed)
    order = {"noise": torch.arange(16.0, dtype=torch.double)[None]} if name == "mae" else {}
    agree(loaded, encoder, **order)


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_in_the_ledger_under_the_files_name(saved, name):
    from safetensors import safe_open

    folder, _ = saved(name)
    ledger = attnprobe.load(folder).ledger
    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        stored = set(file.keys())
    named = [line.partition(" -> ")[0].split(" + ") for line in ledger.converted]
    used = {part.partition("[")[0] for parts in named for part in parts} | set(ledger.matched)
    dropped = {line.partition(": ")[0] for line in ledger.dropped}
    assert used | dropped == stored
    assert not used & dropped


@pytest.mark.parametrize("name", ["vit", "beit", "dinov2_registers", "clip", "siglip", "swin"])
def test_without_config_json_it_says_what_it_assumes(saved, name, tmp_path):
    folder, encoder = saved(name)
    shutil.copy(folder / "model.safetensors", tmp_path)
    told = name in ("beit", "swin")  # tables tell their heads
    loaded = attnprobe.load(tmp_path, heads=None if told else 4)
    assert name == "swin" or any("no config.json" in line for line in loaded.spec.assumed)
    agree(loaded, encoder)


def test_swin_v2_without_its_config_is_refused(saved, tmp_path):
    shutil.copy(saved("swinv2")[0] / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match=r"window size") as caught:
        attnprobe.load(tmp_path)
    assert "config.json" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "classes"),
    [("vit", 5), ("deit", 5), ("deit_one_head", 0), ("beit", 5), ("dinov2", 0), ("swin", 5)],
)
def test_linear_heads_of_the_encoder_are_taken_over(saved, name, classes):
    folder, _ = saved(name)
    loaded = attnprobe.load(folder)
    assert loaded.module.num_classes == classes
    assert classes or any("classifier" in line for line in loaded.ledger.dropped)


def test_logits_equal_the_librarys(saved):
    folder, _ = saved("vit")
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            attnprobe.load(folder).module(images), model(images).logits, rtol=1e-4, atol=1e-4
        )


def test_merged_tensors_name_their_parts(saved):
    ledger = attnprobe.load(saved("vit")[0]).ledger
    base = "vit.encoder.layer.0.attention.attention"
    parts = " + ".join(f"{base}.{part}.weight" for part in ("query", "key", "value"))
    assert f"{parts} -> blocks.0.attn.qkv.weight" in ledger.converted


def test_parts_that_are_no_encoder_are_dropped_with_the_reason(saved):
    dropped = attnprobe.load(saved("clip")[0]).ledger.dropped
    assert any(line.startswith("text_model.") and line.endswith("text tower") for line in dropped)
    dropped = attnprobe.load(saved("mae")[0]).ledger.dropped
    assert any(line.startswith("decoder.") and "decoder" in line[10:] for line in dropped)


def test_preprocessor_is_taken_over(saved, tmp_path):
    shutil.copytree(saved("vit")[0], tmp_path, dirs_exist_ok=True)
    stated = {
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 28},
        "size": {"shortest_edge": 32},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    spec = attnprobe.load(tmp_path).spec
    assert spec.mean == (0.1, 0.2, 0.3)
    assert spec.std == (0.4, 0.5, 0.6)
    assert spec.interpolation == "bilinear"
    assert spec.crop_pct == 28 / 32
    assert any("--img-size 28" in line for line in spec.assumed)


def test_config_of_other_weights_is_refused(saved, tmp_path):
    shutil.copy(saved("vit")[0] / "model.safetensors", tmp_path)
    config = json.loads((saved("vit")[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    with pytest.raises(CheckpointError, match=r"width 48, the weights have 32"):
        attnprobe.load(tmp_path)


def test_gated_mlp_of_another_activation_is_refused(saved, tmp_path):
    shutil.copy(saved("dinov3_gated")[0] / "model.safetensors", tmp_path)
    config = json.loads((saved("dinov3_gated")[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    with pytest.raises(FormatError, match=r"hidden_act 'gelu'"):
        attnprobe.load(tmp_path)


def test_query_key_and_value_of_different_shapes_are_refused(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved("vit")[0] / "model.safetensors")
    name = "vit.encoder.layer.0.attention.attention.key.weight"
    tensors[name] = tensors[name][:, :16].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"differ in shape.*key.weight \[32, 16\]"):
        attnprobe.load(tmp_path)


def test_every_format_of_a_framework_has_a_row_of_signs():
    frameworks = ("transformers", "mm")
    assert {item.name for item in formats() if item.name.startswith(frameworks)} == set(SIGNS)


@pytest.mark.parametrize("name", SIGNS)
def test_signs_identify_the_format(name):
    assert identify(unwrap(SIGNS[name])).name == name
