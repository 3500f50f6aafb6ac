"""Captured attention equals the modules' own, and the model is left as it was found."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import attnprobe
from attnprobe.capture import capture
from attnprobe.errors import CaptureError, GeometryError
from attnprobe.kernels import reference

# name, arguments, image size, prefix tokens, expected windows
FAMILIES = {
    "vit": ("test_vit", {}, 160, 1),
    "vit, registers": ("test_vit4", {}, 160, 1),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", {"depth": 2}, 224, 2),
    "dinov2, registers": (
        "vit_small_patch14_reg4_dinov2",
        {"img_size": 70, "depth": 2, "embed_dim": 64, "num_heads": 4},
        70,
        5,
    ),
    "vit, qk norm": ("test_vit", {"qk_norm": True}, 160, 1),
    "beit": (
        "beit_base_patch16_224",
        {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 4},
        64,
        1,
    ),
    "beit, shared bias": (
        "beit_base_patch16_224",
        {
            "img_size": 64,
            "depth": 2,
            "embed_dim": 64,
            "num_heads": 4,
            "use_rel_pos_bias": False,
            "use_shared_rel_pos_bias": True,
            "use_abs_pos_emb": False,
        },
        64,
        1,
    ),
    "eva-02, rotary": ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 2}, 56, 1),
    "dinov3, rotary": ("vit_small_patch16_dinov3", {"img_size": 64, "depth": 2}, 64, 5),
    "siglip, pooling head": (
        "vit_base_patch16_siglip_224",
        {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 4},
        64,
        0,
    ),
    "rectangular": ("test_vit", {"img_size": (64, 96)}, (64, 96), 1),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 56, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32},
        56,
        0,
    ),
    "swin v2": (
        "swinv2_tiny_window8_256",
        {"img_size": 64, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32},
        64,
        0,
    ),
}


def build(family):
    """A small model of a family with every parameter random, and images for it."""
    name, arguments, size, prefix = FAMILIES[family]
    if name not in timm.list_models(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **arguments).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15 if parameter.ndim > 1 else 0.5)
    side = size if isinstance(size, tuple) else (size, size)
    return model, torch.randn(2, 3, *side), prefix


def own_softmax(model, images):
    """What the modules compute with fused attention off, seen by their dropout layers."""
    seen = []
    modules = [m for m in model.modules() if hasattr(m, "attn_drop") and hasattr(m, "num_heads")]
    handles = [
        m.attn_drop.register_forward_hook(lambda _, args, out: seen.append(args[0].clone()))
        for m in modules
    ]
    fused = {m: m.fused_attn for m in modules if hasattr(m, "fused_attn")}
    for module in fused:
        module.fused_attn = False
    with torch.no_grad():
        model.double()(images.double())
    for module, value in fused.items():
        module.fused_attn = value
    for handle in handles:
        handle.remove()
    model.float()
    return seen


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_attention_is_the_modules_own(family):
    model, images, prefix = build(family)
    truth = own_softmax(model, images)
    with torch.no_grad(), capture(model.double()) as taps:
        model(images.double())
    assert len(taps.attention) == len(taps.layers) >= 2
    for inputs, expected in zip(taps.attention, truth, strict=False):
        found = reference.logits(inputs, slice(None)).softmax(-1)
        assert inputs.layer.grid.prefix == prefix
        assert inputs.layer.grid.tokens == found.shape[-1]
        torch.testing.assert_close(found, expected.view_as(found), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_does_not_change_by_a_bit(family):
    model, images, _ = build(family)
    before = hooks(model)
    with torch.no_grad():
        plain = model(images)
        with capture(model):
            watched = model(images)
    assert torch.equal(plain, watched)
    assert hooks(model) == before


def test_features_are_the_block_outputs():
    model, images, _ = build("vit")
    outputs = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, args, out: outputs.append(out))
    with torch.no_grad(), capture(model) as taps:
        model(images)
    assert [f.layer.index for f in taps.features] == list(range(len(model.blocks)))
    for features, expected in zip(taps.features, outputs, strict=True):
        assert torch.equal(features.x, expected)


def test_stages_strides_and_windows_of_swin():
    model, images, _ = build("swin")
    with torch.no_grad(), capture(model) as taps:
        model(images)
    grids = [layer.grid for layer in taps.layers]
    assert [layer.stage for layer in taps.layers] == [0, 0, 1, 1]
    assert [(g.rows, g.patch[0]) for g in grids] == [(14, 4), (14, 4), (7, 8), (7, 8)]
    assert [g.shift for g in grids] == [(0, 0), (3, 3), (0, 0), (0, 0)]
    assert taps.attention[0].windows == 4
    assert taps.attention[2].windows == 1


@pytest.mark.parametrize("family", ["swin", "swin v2"])
def test_the_shift_mask_follows_from_the_grid(family):
    model, images, _ = build(family)
    with torch.no_grad(), capture(model) as taps:
        model(images)
    blocks = [block for stage in model.layers for block in stage.blocks]
    assert any(block.attn_mask is not None for block in blocks)
    for layer, block in zip(taps.layers, blocks, strict=True):
        visible = torch.from_numpy(layer.grid.visible())
        if block.attn_mask is None:
            assert visible.all()
        else:
            assert torch.equal(visible, block.attn_mask == 0)


def test_hooks_are_gone_after_an_exception():
    model, images, _ = build("vit")
    before = hooks(model)
    last = model.head.register_forward_hook(lambda *_: [][0])
    with pytest.raises(IndexError), torch.no_grad(), capture(model):
        model(images)
    last.remove()
    assert hooks(model) == before
    model.blocks[2].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), torch.no_grad(), capture(model):
        model(images)
    assert hooks(model) == before + 1
    assert torch.overrides._len_torch_function_stack() == 0


def test_a_callback_keeps_nothing():
    model, images, _ = build("vit")
    seen = []
    with torch.no_grad(), capture(model, seen.append, lambda features: None) as taps:
        model(images)
    assert len(seen) == len(taps.layers) == 6
    assert taps.attention == []
    assert taps.features == []


def unfuse(block, inputs):
    """Take a block's attention out of sight after it was looked at."""
    del inputs
    block.attn.fused_attn = False


def test_a_silent_layer_is_named():
    model, images, _ = build("vit")
    model.blocks[3].register_forward_pre_hook(unfuse)
    with (
        pytest.raises(CaptureError, match=r"1 of 6 .*blocks\.3\.attn"),
        torch.no_grad(),
        capture(model),
    ):
        model(images)


def test_a_layer_that_is_not_fused_is_read_from_its_softmax():
    model, images, _ = build("vit")
    with torch.no_grad(), capture(model) as fused:
        model(images)
    model.blocks[3].attn.fused_attn = False
    with torch.no_grad(), capture(model) as plain:
        model(images)
    one, other = (reference.logits(x.attention[3], slice(None)).softmax(-1) for x in (fused, plain))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_silent_layer_is_noticed_before_the_next_pass():
    model, images, _ = build("vit")
    passes = iter([images, images, None])
    model.blocks[3].register_forward_pre_hook(unfuse)
    with torch.no_grad(), pytest.raises(CaptureError, match=r"blocks\.3"), capture(model):
        all(model(batch) is not None for batch in passes)
    assert next(passes) is None  # the second pass was stopped, the third never began


def test_a_layer_that_runs_twice_is_named():
    model, images, _ = build("vit")
    model.blocks[1] = nn.Sequential(model.blocks[1])
    model.blocks[1].register_forward_hook(lambda module, args, out: module[0](args[0]))
    with torch.no_grad(), pytest.raises(CaptureError, match="more than once"), capture(model):
        model(images)


def test_a_convolutional_network_is_refused():
    model = timm.create_model("test_resnet", pretrained=False)
    with pytest.raises(CaptureError, match="no attention layers"), capture(model):
        pass


def test_unknown_attention_is_refused_by_name():
    class OwnAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads, self.qkv = 2, nn.Linear(64, 192)

    model, _, _ = build("vit")
    model.blocks[0].attn = OwnAttention()
    with pytest.raises(CaptureError, match=r"blocks\.0\.attn \(OwnAttention\)"):
        capture(model).__enter__()


def test_dropped_tokens_are_refused_not_misplaced():
    model = timm.create_model("test_vit", pretrained=False, patch_drop_rate=0.5).train()
    with torch.no_grad(), pytest.raises(GeometryError, match="51 tokens"), capture(model):
        model(torch.randn(1, 3, 160, 160))


def test_windows_that_do_not_tile_are_padded():
    arguments = {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32}
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, **arguments).eval()
    with torch.no_grad(), capture(model) as taps:
        model(torch.randn(1, 3, 64, 64))
    assert [layer.grid.padding for layer in taps.layers] == [(5, 5), (5, 5), (6, 6), (6, 6)]


def test_queries_that_share_keys_are_read_and_measured():
    """Grouped-query attention, as SDPA takes it: fewer heads of keys than of queries."""

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads, self.fused_attn = 4, True
            self.qkv, self.proj = nn.Linear(32, 64), nn.Linear(32, 32)

        def forward(self, x, attn_mask=None, **_):
            q, k, v = self.qkv(x).split([32, 16, 16], -1)
            q, k, v = (y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in (q, k, v))
            y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            self.weights = (q * 8**-0.5 @ k.repeat_interleave(2, 1).mT).softmax(-1)
            return self.proj(y.transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=64, embed_dim=32, num_heads=4, depth=1
    ).eval()
    model.blocks[0].attn = Grouped()
    images = torch.randn(6, 3, 64, 64)
    result = attnprobe.analyze(model, images, ["entropy", "prefix_mass"], maps=1)
    rows = model.blocks[0].attn.weights[:, :, 1:, 1:]  # of the last pass
    rows = rows / rows.sum(-1, keepdim=True)
    entropy = -(rows * rows.log()).sum(-1).mean((0, 2))
    np.testing.assert_allclose(result.tables["entropy"]["value"], entropy.detach(), rtol=1e-4)
    assert result.layers["heads"].tolist() == [4]
