"""Tokens that are pooled, unrolled or spread out lie where the pixels say that they do."""

import math
from dataclasses import replace

import families
import pytest
import timm
import token_order
import torch
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from torch import nn

from attnprobe.attention.families import hiera
from attnprobe.attention.strides import convolved
from attnprobe.capture import capture
from attnprobe.errors import AttnprobeError, GeometryError
from attnprobe.types import TokenGrid

HIERA = {"embed_dim": 16, "num_heads": 1, "stages": (2, 2, 2, 2)}
SAM2 = families.FAMILIES["Hiera, SAM 2"].arguments
CROSSVIT = families.FAMILIES["CrossViT"].arguments
PIT = families.FAMILIES["PiT"].arguments
SMALL_MVIT = MultiScaleVitCfg(
    depths=(1, 2, 2, 1), embed_dim=32, use_cls_token=True, expand_attn=False
)
MODELS = {
    "Hiera": ("hiera_tiny_224", (128, 64), {"img_size": (128, 64), **HIERA}),
    "Hiera, SAM 2": ("sam2_hiera_tiny", (224, 448), SAM2),
    "MViTv2": ("mvitv2_tiny", (96, 96), {"img_size": 96}),
    "MViTv2, class token": (SMALL_MVIT, (64, 64), {"img_size": 64}),
    "PiT": ("pit_ti_224", (64, 64), PIT),
    "TNT": ("tnt_s_patch16_224", (64, 64), {"img_size": 64, "depth": 1}),
    "MobileViT": ("mobilevit_xxs", (64, 128), {}),
    "CrossViT": ("crossvit_9_240", (48, 48), CROSSVIT),
}
LATE = "stages.3"  # of MViTv2: by then attention has mixed its few tokens


def built(name: str, **more):
    torch.manual_seed(0)
    kind, size, arguments = MODELS[name]
    if isinstance(kind, MultiScaleVitCfg):
        model = MultiScaleVit(kind, **arguments)
    else:
        model = timm.create_model(kind, pretrained=False, **arguments | more)
    return model.eval(), torch.randn(1, 3, *size)


def features(name: str):
    model, image = built(name)
    found = {}
    with (
        torch.inference_mode(),
        capture(model, lambda _: None, lambda x: found.update({x.layer.name: x.x})),
    ):
        model(image)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_tokens_answer_to_the_pixels_below_them(name):
    model, image = built(name)
    wrong = token_order.misplaced(token_order.pointed(model), image, cells=2)
    assert [x for x in wrong if not (name.startswith("MViT") and x.startswith(LATE))] == []


def test_an_order_that_is_not_undone_is_found(monkeypatch):
    unordered = replace(hiera.VARIANTS[0], order=None)
    monkeypatch.setattr("attnprobe.attention.reading.variant_of", lambda _: unordered)
    model, image = built("Hiera")
    assert len(token_order.misplaced(token_order.pointed(model), image, cells=2)) > 4


def test_the_order_is_that_of_the_model():
    model, _ = built("Hiera")
    rows, cols = model.tokens_spatial_shape
    places = torch.arange(rows * cols, dtype=torch.float32).view(1, -1, 1)
    rolled = model.unroll(places).flatten().long()
    strides = [(2, 2)] * 3
    assert torch.equal(rolled[hiera._order(strides, (rows, cols), False)], places.flatten().long())


def test_pooled_queries_lie_in_the_middle_of_their_keys():
    model, image = built("Hiera")
    with torch.inference_mode(), capture(model) as taps:
        model(image)
    pooled = [x.layer.grid for x in taps.attention if x.layer.grid.keys]
    assert [x.patch[0] for x in pooled] == [8, 16, 32]
    for grid in pooled:
        keys = grid.keys.centres().reshape(*grid.keys.extent, 2)
        cells = keys.reshape(grid.extent[0], 2, grid.extent[1], 2, 2).mean((1, 3))
        assert abs(cells.reshape(-1, 2) - grid.centres()).max() < 1e-9


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(7, 4, 3), (3, 2, 1), (2, 2, 0), (16, 8, 0)]
)
def test_centres_are_the_middle_of_what_a_convolution_sees(kernel, stride, padding):
    convolution = nn.Conv2d(1, 1, kernel, stride, padding)
    nn.init.ones_(convolution.weight)
    image = torch.zeros(1, 1, 41, 56, requires_grad=True)
    output = convolution(image)[0, 0]
    grid = convolved(TokenGrid(41, 56, (1.0, 1.0), origin=(0.5, 0.5)), convolution)
    assert grid.extent == tuple(output.shape)
    row, col = 2, 1  # away from the border
    output[row, col].backward()
    seen = image.grad[0, 0].nonzero().float().mean(0) + 0.5
    whole = stride * col >= padding
    found = torch.from_numpy(grid.centres()).view(*grid.extent, 2)[row, col]
    assert math.isclose(seen[0], found[0])
    assert not whole or math.isclose(seen[1], found[1])


def test_the_feature_of_a_layer_is_its_own():
    found = features("TNT")
    assert found["blocks.0.attn_in"].shape[1] == 16 * 16
    assert found["blocks.0.attn_out"].shape[1] == 16 + 1


def test_each_block_of_a_branch_has_a_feature_of_its_own():
    found = features("CrossViT")
    branch = [found[f"blocks.0.blocks.1.{index}.attn"] for index in range(4)]
    assert all(x.shape == (1, 5, 256) for x in branch)
    assert not torch.equal(branch[0], branch[1])
    assert found["blocks.0.fusion.0.attn"].shape[1] == 1


def test_windows_that_pool_padding_are_refused_by_name():
    model, _ = built("Hiera, SAM 2")
    with (
        pytest.raises(GeometryError, match=r"padded windows.*blocks\.5\.attn"),
        torch.inference_mode(),
        capture(model),
    ):
        model(torch.zeros(1, 3, 128, 128))


def test_units_that_pooling_does_not_fill_are_refused():
    model, image = built("Hiera", mask_unit_size=(16, 16))
    with pytest.raises(AttnprobeError, match="keys"), torch.inference_mode(), capture(model):
        model(image)
