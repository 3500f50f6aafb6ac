"""Another input size or window: timm's functions, said in the ledger, measured as such."""

import numpy as np
import pytest
import timm
import torch
from random_modules import randomised
from scipy.interpolate import RegularGridInterpolator
from timm.layers import resample_abs_pos_embed

import attnprobe
from attnprobe.checkpoints import load
from attnprobe.errors import CheckpointError


def saved(tmp_path, module, name="a.pth"):
    torch.save(randomised(module).state_dict(), tmp_path / name)
    return tmp_path / name


def vit(**options):
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, **options}
    return timm.models.vision_transformer.VisionTransformer(num_heads=1, num_classes=0, **options)


def swin(version=1, **options):
    small = {"img_size": 32, "patch_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
    kind = {
        1: timm.models.swin_transformer.SwinTransformer,
        2: timm.models.swin_transformer_v2.SwinTransformerV2,
    }[version]
    return kind(**{**small, "window_size": 4, "num_classes": 0, **options})


@pytest.mark.parametrize(
    ("kind", "prefix"), [({}, 1), ({"class_token": False, "global_pool": "avg"}, 0)]
)
def test_absolute_positions_are_timms_and_said(tmp_path, kind, prefix):
    path = saved(tmp_path, vit(**kind))
    before, loaded = load(path).module.pos_embed, load(path, img_size=(48, 24))
    expected = resample_abs_pos_embed(before, (6, 3), (4, 4), num_prefix_tokens=prefix)
    assert torch.equal(loaded.module.pos_embed, expected)
    assert loaded.spec.input_size == (3, 48, 24)
    assert loaded.ledger.resampled == (
        "input: 32x32 -> 48x24 px",
        f"pos_embed: {list(before.shape)} -> {list(expected.shape)} (bicubic, antialiased)",
    )
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())


def test_prefix_positions_stay_as_they_are(tmp_path):
    path = saved(
        tmp_path,
        timm.models.deit.VisionTransformerDistilled(
            img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0
        ),
    )
    before, after = load(path).module.pos_embed, load(path, img_size=(64, 64)).module.pos_embed
    assert after.shape == (1, 66, 64)
    assert torch.equal(after[:, :2], before[:, :2])


def test_the_size_it_has_changes_nothing(tmp_path):
    path = saved(tmp_path, vit())
    plain, loaded = load(path), load(path, img_size=(32, 32))
    assert loaded.ledger == plain.ledger
    assert torch.equal(loaded.module.pos_embed, plain.module.pos_embed)


def test_swin_tables_follow_the_window(tmp_path):
    path = saved(tmp_path, swin())
    before, loaded = load(path), load(path, img_size=(24, 24), window=(3, 3))
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    # from 7 to 5 offsets a side: the grid of 1, 1 + 1.01, ... is nearly that of whole steps
    side = np.array([-3.0301, -2.01, -1, 0, 1, 2.01, 3.0301])
    table = before.module.get_parameter(name).double().numpy().reshape(7, 7)
    y, x = np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="ij")
    expected = RegularGridInterpolator((side, side), table)((y, x)).reshape(25, 1)
    np.testing.assert_allclose(loaded.module.get_parameter(name).numpy(), expected, atol=1e-4)
    assert f"{name}: [49, 1] -> [25, 1] (interpolated on BEiT's geometric grid)" in (
        loaded.ledger.resampled
    )
    result = attnprobe.analyze(loaded, torch.rand(2, 3, 24, 24), metrics=["distance"])
    assert result.layers["window_rows"].tolist() == [3, 3, 3, 3]


def test_swins_window_scales_with_the_input_where_none_is_given(tmp_path):
    loaded = load(saved(tmp_path, swin()), img_size=(64, 64))
    assert loaded.module.layers[0].blocks[0].attn.window_size == (8, 8)
    assert "layers.0.blocks.0.attn: window 4x4 -> 8x8" in loaded.ledger.resampled


def test_swinv2_goes_on_with_the_coordinates_it_was_trained_with(tmp_path):
    module = randomised(swin(2))
    torch.save(
        module.state_dict()
        | {
            "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long),
            "layers.1.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long),
        },
        tmp_path / "v2.pth",
    )
    loaded = load(tmp_path / "v2.pth", img_size=(48, 48), window=(6, 6))
    expected = swin(2, img_size=48, window_size=6, pretrained_window_sizes=(4, 4)).eval()
    expected.load_state_dict(module.state_dict(), strict=True)
    images = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), expected(images))
    assert loaded.ledger.resampled[1] == "layers.0.blocks.0.attn: window 4x4 -> 6x6"


def test_beit_tables_follow_the_grid(tmp_path):
    module = timm.models.beit.Beit(
        img_size=32,
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=1,
        num_classes=0,
        use_rel_pos_bias=True,
        use_abs_pos_emb=False,
        init_values=0.1,
    )
    loaded = load(saved(tmp_path, module), img_size=(48, 48))
    assert loaded.module.blocks[1].attn.relative_position_bias_table.shape == (124, 1)
    assert len(loaded.ledger.resampled) == 5  # the input, two tables, two windows


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"img_size": (30, 32)}, "30x32 is no whole number of patches of 8x8"),
        ({"img_size": (4, 32)}, "4x32 is no whole number"),
        ({"window": (2, 2)}, "attention is global"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, asked, words):
    with pytest.raises(CheckpointError, match=words):
        load(saved(tmp_path, vit()), **asked)


def test_models_that_cannot_change_are_refused():
    with pytest.raises(CheckpointError, match="cannot change its input size"):
        load("timm:levit_128s?pretrained=0", img_size=(256, 256))
