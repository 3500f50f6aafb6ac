"""Every format: its signs, its names before and after, and what it drops."""

import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from random_modules import random_vit, randomised

from attnprobe.checkpoints import load
from attnprobe.errors import FormatError
from attnprobe.formats import Weights, convert, formats, identify, unwrap

ONE = torch.ones(1)
VIT = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias")
BEIT = ("patch_embed.proj.weight", "blocks.0.attn.q_bias", "blocks.0.gamma_1")
TABLE = "attn.relative_position_bias_table"
SWIN = ("patch_embed.proj.weight", f"layers.0.blocks.0.{TABLE}", "layers.0.downsample.norm.weight")
SWINV2 = ("patch_embed.proj.weight", "layers.0.blocks.0.attn.logit_scale")


def under(prefix, names, *more):
    return {**{prefix + name: ONE for name in names}, **dict.fromkeys(more, ONE)}


def tower(names, *outside):
    """The tensors of an encoder that lies under visual. in its file."""
    tensors = dict.fromkeys(names, ONE)
    every = frozenset("visual." + name for name in names).union(outside)
    return Weights(tensors, "visual.", {}, every, frozenset())


CLIP = ("class_embedding", "transformer.resblocks.0.attn.in_proj_weight")
QKV = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
EVA = ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.q_bias")
BIG_VISION = ("embedding/kernel", "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel")
GAMMA = (*QKV, "blocks.0.gamma_1")

SIGNS = {
    "simmim-vit": {
        "model": under("encoder.", BEIT, f"encoder.rel_pos_bias.{TABLE[5:]}", "decoder.0.weight"),
        "config": 1,
    },
    "simmim-vit-finetuned": {"model": under("", BEIT), "lr_scheduler": {}, "max_accuracy": 80.0},
    "simmim-swin": {"model": under("encoder.", SWIN, "decoder.0.weight", "encoder.mask_token")},
    "simmim-swinv2": {"model": under("encoder.", SWINV2, "decoder.0.weight")},
    "beit": {"model": under("", BEIT)},
    "beit-pretrain": {"model": under("", BEIT, "lm_head.weight", f"rel_pos_bias.{TABLE[5:]}")},
    "swin": {"model": under("", SWIN)},
    "swinv2": {"model": under("", SWINV2)},
    "mae": {"model": under("", VIT, "decoder_blocks.0.norm1.weight", "mask_token")},
    "moco-v3": {
        "state_dict": under("module.base_encoder.", VIT)
        | under("module.momentum_encoder.", VIT, "module.predictor.0.weight"),
        "arch": "vit_base",
    },
    "moco-v3-finetuned": {
        "state_dict": under("module.", VIT) | {"module.pos_embed": torch.zeros(1, 5, 4)},
        "arch": "vit_small",
    },
    "ibot": {
        "teacher": under("backbone.", (*VIT, "masked_embed")),
        "student": under("module.backbone.", VIT),
    },
    "dino": {
        "teacher": under("backbone.", VIT, "head.mlp.0.weight"),
        "student": under("module.backbone.", VIT),
    },
    "dinov2": under("", VIT, "register_tokens", "blocks.0.ls1.gamma"),
    "deit-distilled": {"model": under("", VIT, "dist_token")},
    "deit3": {"model": under("", VIT, "blocks.0.gamma_1")},
    "augreg": {
        "embedding/kernel": ONE,
        "Transformer/encoderblock_0/LayerNorm_0/scale": ONE,
    },
    "big-vision": dict.fromkeys(BIG_VISION, ONE),
    "big-vision-siglip": {f"params/img/{name}": ONE for name in BIG_VISION}
    | {"params/txt/head/kernel": ONE},
    "mae-linear-probe": {"model": under("", VIT, "head.0.running_mean", "head.1.weight")},
    "clip": tower(CLIP, "input_resolution"),
    "open-clip": tower(CLIP),
    "aim": tower(("preprocessor.patchifier.proj.weight", "trunk.blocks.0.attn.qkv.weight")),
    "aimv2": under("", QKV, "patch_embed.norm.weight", "blocks.0.mlp.fc1_g.weight"),
    "beit3": under("", QKV, "blocks.0.attn.norm.weight", "blocks.0.mlp.norm.weight"),
    "cae": under("encoder.", BEIT, "regresser.norm.weight", "alignment_encoder.norm.weight"),
    "dinov3": under("", QKV, "storage_tokens", "blocks.0.ls1.gamma"),
    "dinov3-unmasked": under("", VIT, "storage_tokens", "blocks.0.ls1.gamma"),
    "eva": {"module": under("", EVA)},
    "eva-pretrain": {"module": under("", EVA, "lm_head.weight")},
    "eva02-pretrain": {"module": under("", EVA, "blocks.0.mlp.w1.weight", "lm_head.weight")},
    "eva-clip": under("visual.", EVA, "logit_scale"),
    "eva02": {"module": under("", EVA, "blocks.0.mlp.w1.weight", "rope.freqs_cos")},
    "eva02-clip": under("visual.", EVA, "visual.blocks.0.mlp.w1.weight", "logit_scale"),
    "ijepa": {name: under("module.", QKV) for name in ("encoder", "predictor", "target_encoder")},
    "maskfeat": {"model_state": under("", VIT, "pred_head.projections.0.weight"), "cfg": ""},
    "maskfeat-finetuned": {"model_state": under("", VIT, "head.projection.weight"), "cfg": ""},
    "siglip": under("", VIT, "attn_pool.latent"),
    "timm-clip": under("", VIT, "norm_pre.weight"),
    "vit-relpos": under("", VIT, "blocks.0.attn.rel_pos.mlp.fc1.weight"),
    "vit-rope": under("", (*GAMMA, "blocks.0.attn.qkv.bias", "cls_token")),
    "vit-rope-gap": under("", GAMMA, "reg_token"),
    "torchvision": under(
        "",
        ("conv_proj.weight", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"),
    ),
    "timm": {"model": under("", VIT)},
}


def opened(name):
    content = SIGNS[name]
    return content if isinstance(content, Weights) else unwrap(content)


def test_every_release_has_a_row_of_signs():
    frameworks = ("transformers", "mm")  # these have tests of their own
    known = {layout.name for layout in formats() if not layout.name.startswith(frameworks)}
    assert known == set(SIGNS)


@pytest.mark.parametrize("name", SIGNS)
def test_signs_identify_the_format(name):
    assert identify(opened(name)).name == name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 1},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"model": state, "model_ema": {k: t + 1 for k, t in state.items()}},
        lambda state: {"module." + name: tensor for name, tensor in state.items()},
        lambda state: {"_orig_mod." + name: tensor for name, tensor in state.items()},
        lambda state: {"module._orig_mod.encoder." + k: t for k, t in state.items()},
        lambda state: {"state_dict": {"model." + k: t for k, t in state.items()}, "hparams": {}},
        lambda state: {"backbone": state, "head": {"weight": ONE}},
        lambda state: {"backbone." + k: t for k, t in state.items()} | {"head.weight": ONE},
        lambda state: {"teacher": {"backbone." + k: t for k, t in state.items()}},
    ],
)
def test_wrappers_and_prefixes_come_off(wrap):
    state = dict.fromkeys(VIT, ONE)
    weights = unwrap(wrap(state))
    assert set(weights.tensors) == set(VIT)
    assert all(tensor.item() == 1 for tensor in weights.tensors.values())


def test_which_copy_was_taken_is_said():
    weights = unwrap(SIGNS["dino"])
    assert "weights taken from 'teacher' (the file also holds student)" in weights.notes
    weights = unwrap(SIGNS["moco-v3"])
    assert weights.prefix == "module.base_encoder."
    assert any("momentum_encoder" in note for note in weights.notes)
    assert "another copy" in weights.outside["module.momentum_encoder.blocks.0.attn.qkv.weight"]
    assert "another copy" not in weights.outside["module.predictor.0.weight"]


def renamed(name):
    weights = opened(name)
    return convert(weights, identify(weights))


def test_official_swin_merges_at_the_end_of_a_stage():
    origin = renamed("swin").origin
    assert origin["layers.1.downsample.norm.weight"] == "layers.0.downsample.norm.weight"
    origin = renamed("simmim-swin").origin
    assert origin["layers.1.downsample.norm.weight"] == "encoder.layers.0.downsample.norm.weight"


def test_timm_swin_keeps_its_merging():
    names = ("patch_embed.proj.weight", f"layers.0.blocks.0.{TABLE}")
    merging = "layers.1.downsample.reduction.weight"
    weights = unwrap(under("", (*names, merging)))
    assert convert(weights, identify(weights)).origin[merging] == merging


def test_heads_decoders_and_masks_are_dropped_with_a_reason():
    assert renamed("mae").dropped == {
        "decoder_blocks.0.norm1.weight": "decoder of the pre-training task",
        "mask_token": "mask token, unused on whole images",
    }
    assert "lm_head.weight" in renamed("beit-pretrain").dropped
    assert "encoder.mask_token" in renamed("simmim-swin").dropped


def test_deit3_layer_scales_are_renamed():
    assert renamed("deit3").origin["blocks.0.ls1.gamma"] == "blocks.0.gamma_1"


def test_conversion_is_idempotent():
    for name, content in SIGNS.items():
        if name in ("augreg", "big-vision", "big-vision-siglip", "dinov2", "torchvision"):
            continue
        once = renamed(name).tensors
        weights = unwrap(once)
        layout = next(layout for layout in formats() if layout.name == name)
        assert set(convert(weights, layout).tensors) == set(once), (name, content)


def jax_checkpoint(module, heads):
    """Independent writer of the JAX layout: the inverse of what the reader does, in numpy."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    width = state["cls_token"].shape[-1]
    out = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": np.einsum("dcyx->yxcd", state["patch_embed.proj.weight"]),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
        "pre_logits/kernel": np.zeros((width, width), np.float32),
    }
    for i in range(len(module.blocks)):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        for norm, place in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{theirs}{place}/scale"] = state[f"{ours}{norm}.weight"]
            out[f"{theirs}{place}/bias"] = state[f"{ours}{norm}.bias"]
        for dense, place in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            out[f"{theirs}MlpBlock_3/{place}/kernel"] = state[f"{ours}mlp.{dense}.weight"].T
            out[f"{theirs}MlpBlock_3/{place}/bias"] = state[f"{ours}mlp.{dense}.bias"]
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        weights = np.split(state[f"{ours}attn.qkv.weight"], 3)
        biases = np.split(state[f"{ours}attn.qkv.bias"], 3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}{part}/kernel"] = weight.T.reshape(width, heads, width // heads)
            out[f"{attention}{part}/bias"] = bias.reshape(heads, width // heads)
        projection = state[f"{ours}attn.proj.weight"].T
        out[f"{attention}out/kernel"] = projection.reshape(heads, width // heads, width)
        out[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
    return out


def test_augreg_arrays_give_the_same_network_and_state_their_heads(tmp_path):
    module = random_vit(img_size=24, patch_size=8, embed_dim=40, depth=2, num_heads=5)
    np.savez(tmp_path / "a.npz", **jax_checkpoint(module, 5))
    loaded = load(tmp_path / "a.npz")
    assert loaded.spec.format == "augreg"
    assert loaded.spec.mean == (0.5, 0.5, 0.5)
    assert loaded.spec.input_size == (3, 24, 24)
    assert loaded.ledger.dropped == (
        "pre_logits/kernel: representation layer between encoder and head",
    )
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))


def scanned(arrays):
    """The same arrays as big_vision names them, with the layers of one kind in one array."""
    out = {}
    for name, array in arrays.items():
        for old, new in (
            ("MlpBlock_3", "MlpBlock_0"),
            ("LayerNorm_2", "LayerNorm_1"),
            ("Attention_1", "Attention_0"),
            ("Transformer/posembed_input/", ""),
        ):
            name = name.replace(old, new)
        out[name] = array
    layers = {re.sub(r"encoderblock_\d+", "encoderblock", name) for name in out}
    return {
        f"params/img/{name}": np.stack(
            [out[name.replace("encoderblock", f"encoderblock_{i}")] for i in range(2)]
        )
        if "encoderblock" in name
        else out[name]
        for name in layers
    }


def test_big_vision_arrays_scanned_over_layers_give_the_same_network(tmp_path):
    options = {"embed_dim": 40, "depth": 2, "num_heads": 5, "act_layer": "gelu_tanh"}
    module = random_vit(img_size=24, patch_size=8, **options)
    arrays = scanned(jax_checkpoint(module, 5))
    arrays["params/txt/head/kernel"] = arrays["params/t"] = np.ones((2, 2), np.float32)
    arrays["params/img/MAPHead_0/probe"] = np.ones((1, 1, 40), np.float32)
    np.savez(tmp_path / "a.npz", **arrays)
    loaded = load(tmp_path / "a.npz")
    assert loaded.spec.format == "big-vision-siglip"
    dropped = dict(line.split(": ") for line in loaded.ledger.dropped)
    assert dropped["params/img/MAPHead_0/probe"] == "attention pooling after the encoder"
    assert "params/txt/head/kernel" in dropped
    name = "params/img/Transformer/encoderblock/LayerNorm_0/scale[1] -> blocks.1.norm1.weight"
    assert name in loaded.ledger.converted
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))


def test_unknown_transformers_name_what_was_found():
    with pytest.raises(FormatError, match=r"blocks\.0\.attn\.in_proj"):
        identify(unwrap({"patch_embed.proj.weight": ONE, "blocks.0.attn.in_proj.weight": ONE}))


def test_torchvision_gives_the_same_network(tmp_path):
    options = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2}
    options |= {"hidden_dim": 128, "mlp_dim": 200, "num_classes": 6}
    module = randomised(torchvision.models.VisionTransformer(**options))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours = load(tmp_path / "a.pth").module(images)
        torch.testing.assert_close(ours, module(images), rtol=1e-5, atol=1e-5)


def test_unread_transformers_are_not_said_to_lack_attention(tmp_path):
    torch.save(timm.create_model("coat_tiny").state_dict(), tmp_path / "a.pth")
    with pytest.raises(FormatError, match="known layout"):
        load(tmp_path / "a.pth")


def test_networks_without_attention_are_refused_by_their_layers(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "r.pth")
    with pytest.raises(FormatError, match=r"no attention.*conv1\.weight"):
        load(tmp_path / "r.pth")
    torch.save(timm.create_model("mixer_s32_224").state_dict(), tmp_path / "m.pth")
    with pytest.raises(FormatError, match="no attention"):
        load(tmp_path / "m.pth")
