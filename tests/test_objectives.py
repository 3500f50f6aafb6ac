"""Pre-training objectives: losses against plain lines, every backbone, one and two processes."""

import copy
import pickle
import random
from functools import partial

import numpy as np
import pytest
import timm
import torch
from objective_references import (
    ALL,
    BACKBONES,
    FRAMING,
    OPTIONS,
    backbone,
    batch_of,
    build,
    forward_backward,
    framing_of,
    in_two_processes,
    info_nce,
    mae_loss,
    photo,
    position,
    simmim_loss,
    window_statistics,
)
from PIL import Image
from timm.optim import create_optimizer_v2
from torch import nn
from torchvision.transforms import v2 as transforms

from attnprobe import objectives
from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Clock, Framing, _initial, _syncbn, _views, mae, mocov3, simmim

PAIRS = [(objective, family) for objective in OPTIONS for family in BACKBONES]
PLAIN_VIT = ("vit", "vit without class token", "vit with registers", "deit distilled")


def test_every_pretraining_objective_is_found():
    assert set(OPTIONS) <= set(objectives.names())
    for name in OPTIONS:
        assert objectives.load(name).name == name


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_every_trained_weight_gets_a_gradient(objective, family):
    if objective == "mae" and family not in PLAIN_VIT:
        with pytest.raises(AttnprobeError, match=type(backbone(family)).__name__):
            build(objective, family)
        return
    module = build(objective, family)
    loss = forward_backward(objective, module, batch_of(objective, family))
    assert loss.isfinite()
    assert loss.ndim == 0
    trained = {name: item for name, item in module.named_parameters() if item.requires_grad}
    for name, item in trained.items():
        assert item.grad is not None, name
        assert item.grad.isfinite().all(), name
    encoder = [name for name in trained if name.startswith("encoder.")]
    assert len(encoder) > 10
    assert not any(name.startswith("momentum") for name in trained)
    backbone(family).load_state_dict(module.encoder.state_dict(), strict=True)


@pytest.mark.parametrize("objective", OPTIONS)
def test_the_loss_falls(objective):
    module, batch = build(objective), batch_of(objective, count=8)
    optimizer = create_optimizer_v2(module, "adamw", lr=2e-3, weight_decay=0.05)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = objectives.load(objective).step(module, batch, Clock(step, 30))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


@pytest.mark.parametrize("objective", OPTIONS)
def test_mixed_precision_keeps_the_loss_in_float32(objective):
    module, batch = build(objective), batch_of(objective)
    exact = forward_backward(objective, copy.deepcopy(module), batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objectives.load(objective).step(module, batch, ALL)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact), rel=0.05)


@pytest.mark.parametrize(
    ("family", "half", "fused"),
    [("vit", False, True), ("vit", True, False), ("beit, shared table", False, False)],
)
def test_attention_is_written_out_where_that_trains_faster(family, half, fused, monkeypatch):
    module, batch = build("simmim", family), batch_of("simmim", family)
    layer, seen = module.encoder.blocks[0].attn, []
    layer.register_forward_pre_hook(lambda *_: seen.append(layer.fused_attn))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        module(batch["image"], batch["mask"])
    assert seen == [fused]
    assert layer.fused_attn  # measuring attention relies on it
    monkeypatch.setattr(layer, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        module(batch["image"], batch["mask"])
    assert layer.fused_attn
    assert module._cover.hidden is None


@pytest.mark.parametrize("objective", OPTIONS)
def test_checkpointed_activations_give_the_same_gradients(objective):
    plain, saving, batch = build(objective), build(objective), batch_of(objective)
    saving.encoder.set_grad_checkpointing(True)
    losses = [forward_backward(objective, module, batch) for module in (plain, saving)]
    assert torch.equal(*losses)
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert one.grad is other.grad is None or torch.allclose(one.grad, other.grad), name


@pytest.mark.parametrize("objective", ["simmim", "mae"])
def test_a_compiled_module_computes_the_same(objective):
    module, batch = build(objective), batch_of(objective)
    expected = forward_backward(objective, copy.deepcopy(module), batch)
    module.compile(backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.allclose(forward_backward(objective, module, batch), expected)
    torch.compiler.reset()


@pytest.mark.parametrize("objective", OPTIONS)
def test_the_encoder_is_plain_timm_once_the_objective_is_done(objective):
    module, batch = build(objective), batch_of(objective)
    forward_backward(objective, module, batch)
    fresh = backbone("vit").eval()
    fresh.load_state_dict(module.encoder.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(fresh(images), module.encoder.eval()(images))
        assert torch.equal(fresh(images), copy.deepcopy(module.encoder)(images))


def test_simmim_loss():
    module, batch = build("simmim").double(), batch_of("simmim", count=2, dtype=torch.float64)
    with torch.no_grad():
        made = module.reconstruct(batch["image"], batch["mask"])
        found = module(batch["image"], batch["mask"])
    expected = simmim_loss(batch["image"], made, batch["mask"], 4)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_simmim_loss_of_normalised_targets():
    images = torch.randn(2, 3, 9, 11, dtype=torch.float64) * 3 + 1
    made, mean, deviation = simmim.windowed(images, 5)
    for y, x in ((0, 0), (0, 5), (4, 4), (8, 10), (7, 1)):
        expected, variance = window_statistics(images, 5, y, x)
        assert torch.allclose(mean[:, :, y, x], expected)
        assert torch.allclose(deviation[:, :, y, x] ** 2, variance + 1e-6)
        assert torch.allclose(made[:, :, y, x], (images[:, :, y, x] - expected) / variance.sqrt())
    module = build("simmim", norm_target=5).double()
    batch = batch_of("simmim", count=1, dtype=torch.float64)
    with torch.no_grad():
        output = module.reconstruct(batch["image"], batch["mask"])
        found = module(batch["image"], batch["mask"])
    targets = simmim.windowed(batch["image"], 5)[0]
    assert float(found) == pytest.approx(simmim_loss(targets, output, batch["mask"], 4))


@pytest.mark.parametrize("side", [1, 2, 46])
def test_a_window_without_a_centre_is_refused(side):
    with pytest.raises(AttnprobeError, match=f"norm_target is {side}"):
        build("simmim", norm_target=side)


def test_mae_loss():
    module, batch = build("mae").double(), batch_of("mae", count=2, dtype=torch.float64)
    with torch.no_grad():
        made, hidden = module.predict(batch["image"], batch["noise"])
        found = module(batch["image"], batch["noise"])
    assert int(hidden.sum()) == 2 * 48
    assert float(found) == pytest.approx(mae_loss(batch["image"], made, hidden, 4), rel=1e-12)


def test_patches_go_apart_and_together_again():
    images = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    cut = mae.patchify(images, (4, 3))
    assert cut.shape == (2, 8, 36)
    assert torch.equal(cut[1, 5], images[1, :, 4:8, 3:6].permute(1, 2, 0).flatten())
    assert torch.equal(mae.unpatchify(cut, (2, 4), (4, 3)), images)


@pytest.mark.parametrize("column_first", [True, False])
def test_fixed_positions(column_first):
    table = _initial.sincos(16, (3, 5), column_first=column_first)
    for row, col in ((0, 0), (1, 4), (2, 1)):
        expected = torch.tensor(position(16, row, col, column_first=column_first))
        assert torch.allclose(table[row * 5 + col], expected, atol=1e-6)


@pytest.mark.parametrize("objective", ["mae", "mocov3"])
@pytest.mark.parametrize("family", PLAIN_VIT)
def test_positions_stay_fixed_and_prefix_tokens_have_none(objective, family):
    place = build(objective, family).encoder.pos_embed
    assert not place.requires_grad
    prefix = place.shape[1] - 64
    assert not place[0, :prefix].any()
    expected = torch.tensor(position(32, 1, 0, column_first=objective == "mae"))
    assert torch.allclose(place[0, prefix + 8], expected, atol=1e-6)


def test_info_nce():
    module = build("mocov3").double()
    torch.manual_seed(1)
    queries, keys = torch.randn(2, 6, 16, dtype=torch.float64)
    expected = info_nce(queries, keys, 0.2)
    assert float(module._contrast(queries, keys)) == pytest.approx(float(expected), rel=1e-12)


def test_keys_are_made_after_the_slow_encoder_has_followed():
    module, batch = build("mocov3").double(), batch_of("mocov3", dtype=torch.float64)
    with torch.no_grad():
        for item in module.momentum_encoder.parameters():
            item.add_(torch.randn_like(item), alpha=0.1)
    expected = copy.deepcopy(module)
    momentum = 1 - 0.5 * (1 + np.cos(np.pi * 0.25)) * 0.01
    with torch.no_grad():
        views = [batch["view1"], batch["view2"]]
        q1, q2 = (expected.predictor(expected.projector(expected.encoder(x))) for x in views)
        for part in ("encoder", "projector"):
            fast = dict(getattr(expected, part).named_parameters())
            for name, slow in getattr(expected, f"momentum_{part}").named_parameters():
                slow.copy_(momentum * slow + (1 - momentum) * fast[name])
        k1, k2 = (expected.momentum_projector(expected.momentum_encoder(x)) for x in views)
        loss = info_nce(q1, k2, 0.2) + info_nce(q2, k1, 0.2)
    found = mocov3.OBJECTIVE.step(module, batch, Clock(5, 20))["loss"]
    assert float(found.detach()) == pytest.approx(float(loss), rel=1e-10)
    for name, item in module.state_dict().items():
        assert torch.allclose(item, expected.state_dict()[name]), name


def test_the_slow_encoder_follows_once_an_update():
    module, batch = build("mocov3"), batch_of("mocov3")
    with torch.no_grad():
        module.encoder.blocks[0].mlp.fc1.weight.add_(1)
    before = module.momentum_encoder.blocks[0].mlp.fc1.weight.clone()
    mocov3.OBJECTIVE.step(module, batch, Clock(0, 10, micro=1))
    assert torch.equal(before, module.momentum_encoder.blocks[0].mlp.fc1.weight)
    mocov3.OBJECTIVE.step(module, batch, Clock(0, 10, micro=0))
    assert torch.allclose(before + 0.01, module.momentum_encoder.blocks[0].mlp.fc1.weight)


def test_momentum_rises_to_one():
    module = build("mocov3")
    assert [module.momentum(share) for share in (0, 0.5, 1)] == pytest.approx([0.99, 0.995, 1])
    assert build("mocov3", momentum_cosine=False).momentum(0.7) == 0.99


def test_a_single_image_has_nothing_to_be_told_from():
    with pytest.raises(AttnprobeError, match="single image"):
        forward_backward("mocov3", build("mocov3"), batch_of("mocov3", count=1))


@pytest.mark.parametrize("affine", [True, False])
def test_one_process_normalises_as_torch_does(affine):
    torch.manual_seed(0)
    ours, theirs = _syncbn.SyncBatchNorm1d(5, affine=affine), nn.BatchNorm1d(5, affine=affine)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for _ in range(2):
        x = torch.randn(7, 5)
        assert torch.equal(ours(x), theirs(x))
    for name, item in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], item), name
    x = torch.randn(3, 5)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(
        in_two_processes, (str(folder / "store"), str(folder / "out")), nprocs=2
    )
    return [torch.load(folder / f"out.{rank}") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OPTIONS)
def test_two_processes_equal_one_with_the_whole_batch(objective, halves):
    module = build(objective).double()
    whole = batch_of(objective, count=8, dtype=torch.float64)
    loss = forward_backward(objective, module, whole)
    (one, gradients, state), (other, same, _) = (half[objective] for half in halves)
    # both halves hide as many patches; 1e-5 in the divisor leaves 2e-9
    assert float((one + other) / 2) == pytest.approx(float(loss), rel=1e-8)
    for name, item in module.named_parameters():
        if item.requires_grad:
            size = float(item.grad.abs().max())
            assert torch.allclose(gradients[name], item.grad, rtol=1e-6, atol=1e-9 + 1e-7 * size), (
                name
            )
            assert torch.equal(gradients[name], same[name]), name
    for name, item in module.state_dict().items():
        assert torch.allclose(state[name], item, rtol=1e-6, atol=1e-9), name


@torch.no_grad()
def test_simmim_initialises_vit_as_published():
    module = build("simmim", "beit, shared table")
    for number, block in enumerate(module.encoder.blocks, start=1):
        assert float(block.attn.qkv.weight.abs().max()) == pytest.approx(0.02, rel=0.01)
        for last in (block.attn.proj, block.mlp.fc2):
            most = float(last.weight.abs().max())
            assert most == pytest.approx(0.02 / (2 * number) ** 0.5, rel=0.02)
            assert not last.bias.any()
        assert (block.gamma_1 == 0.1).all()
    assert 0 < float(module.mask_token.abs().max()) <= 0.02
    assert not module.encoder.rel_pos_bias.relative_position_bias_table.any()


@torch.no_grad()
def test_moco_initialises_queries_keys_and_values_apart():
    module = build("mocov3")
    block = module.encoder.blocks[0]
    assert float(block.attn.qkv.weight.abs().max()) == pytest.approx((6 / 64) ** 0.5, rel=0.01)
    assert float(block.mlp.fc1.weight.abs().max()) == pytest.approx((6 / 160) ** 0.5, rel=0.01)
    patches = module.encoder.patch_embed.proj
    assert float(patches.weight.abs().max()) == pytest.approx((6 / (48 + 32)) ** 0.5, rel=0.01)
    assert not patches.weight.requires_grad
    for name, item in module.encoder.state_dict().items():
        assert torch.equal(item, module.momentum_encoder.state_dict()[name])
    assert build("mocov3", freeze_patch=False).encoder.patch_embed.proj.weight.requires_grad


def test_building_draws_nothing_but_weights_and_leaves_modes_alone():
    torch.manual_seed(5)
    encoder = backbone("vit").eval()
    framing, before = framing_of("vit"), torch.get_rng_state()
    features = objectives._backbone.trial(encoder, framing.size, encoder.forward_features)
    assert torch.equal(before, torch.get_rng_state())
    assert not encoder.training
    assert features.shape == (1, 65, 32)
    assert all(item.grad is None for item in encoder.parameters())


@pytest.mark.parametrize(
    ("objective", "family", "free"),
    [
        ("simmim", "beit, shared table", "encoder.rel_pos_bias.relative_position_bias_table"),
        ("simmim", "swin", "encoder.layers.0.blocks.0.attn.relative_position_bias_table"),
        ("simmim", "swin v2", "encoder.layers.0.blocks.0.attn.cpb_mlp.0.weight"),
        ("simmim", "vit", "encoder.pos_embed"),
        ("mae", "vit with registers", "encoder.reg_token"),
        ("mae", "vit", "encoder.cls_token"),
    ],
)
def test_tokens_and_positions_do_not_decay(objective, family, free):
    module = build(objective, family)
    optimizer = create_optimizer_v2(module, "adamw", lr=1e-3, weight_decay=0.05)
    names = {id(item): name for name, item in module.named_parameters()}
    groups = {
        bool(group["weight_decay"]): {names[id(item)] for item in group["params"]}
        for group in optimizer.param_groups
    }
    assert {free, "mask_token"} <= groups[False]
    assert all(dict(module.named_parameters())[name].ndim > 1 for name in groups[True])
    assert any(name.endswith("qkv.weight") for name in groups[True])


@pytest.mark.parametrize("objective", OPTIONS)
def test_views_depend_on_torch_alone_and_travel_to_workers(objective):
    found = objectives.load(objective)
    views = found.views(found.config(**OPTIONS[objective]), FRAMING)
    image = photo()
    drawn = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(7)
        drawn.append(pickle.loads(pickle.dumps(views))(image))
    torch.manual_seed(8)
    other = views(image)
    for name, value in drawn[0].items():
        assert torch.equal(value, drawn[1][name])
        assert not torch.equal(value, other[name])
        if value.ndim == 3:
            assert value.dtype == torch.float32
            assert value.shape == (3, 32, 32)


def test_views_are_normalised():
    found = objectives.load("simmim")
    views = found.views(found.config(mask_patch=8), FRAMING)
    white = photo().point(lambda _: 255)
    expected = (1 - torch.tensor(FRAMING.mean)) / torch.tensor(FRAMING.std)
    assert torch.allclose(views(white)["image"], expected.view(3, 1, 1).expand(3, 32, 32))


def test_blur_and_solarize():
    torch.manual_seed(0)
    image = photo()
    blurred = np.asarray(_views.Blur()(image), dtype=float)
    assert blurred.std() < np.asarray(image, dtype=float).std()
    bright = np.asarray(_views.Solarize()(image))
    pixels = np.asarray(image)
    assert (bright == np.where(pixels < 128, pixels, 255 - pixels)).all()


@pytest.mark.parametrize("bounds", [{"crop_min": 0}, {"crop_min": 0.9, "crop_max": 0.5}])
def test_impossible_crops_are_refused(bounds):
    with pytest.raises(AttnprobeError, match="crop_min"):
        objectives.load("simmim").views(simmim.Options(mask_patch=8, **bounds), FRAMING)


@pytest.mark.parametrize(("objective", "options"), [("simmim", {"norm_target": 5}), ("mae", {})])
def test_pictures_show_what_was_hidden(objective, options, monkeypatch):
    found = objectives.load(objective)
    config = found.config(**{**OPTIONS[objective], **options})
    module, batch = build(objective, **options).eval(), batch_of(objective)
    images = batch["image"]
    with torch.no_grad():
        panels = found.pictures(module, batch, config, FRAMING)
    assert panels.shape == (4, 4, 3, 32, 32)
    assert panels.dtype == torch.uint8
    original, masked, made, pasted = panels.unbind(1)
    mask = batch["mask"] if objective == "simmim" else batch["noise"].argsort(1).argsort(1) >= 16
    hidden = mask.view(4, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(masked, torch.where(hidden, 128, original))
    assert torch.equal(pasted, torch.where(hidden, made, original))
    # a perfect prediction is the image again, whatever it was normalised by
    if objective == "simmim":
        perfect = simmim.windowed(images, 5)[0]
        monkeypatch.setattr(module, "reconstruct", lambda *_: perfect)
    else:
        cut = mae.patchify(images, (4, 4))
        cut = (cut - cut.mean(-1, keepdim=True)) / (cut.var(-1, keepdim=True) + 1e-6) ** 0.5
        _, hidden = module.predict(images, batch["noise"])
        monkeypatch.setattr(module, "predict", lambda *_: (cut, hidden))
    made = found.pictures(module, batch, config, FRAMING)[:, 2]
    assert int((made.int() - original.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("objective", "make", "named"),
    [
        ("simmim", partial(timm.create_model, "resnet18", num_classes=0), "ResNet"),
        ("simmim", partial(timm.create_model, "pvt_v2_b0", num_classes=0), "PyramidVision"),
        ("mae", partial(backbone, "swin"), "SwinTransformer"),
        (
            "mae",
            partial(timm.create_model, "vit_tiny_patch16_224", patch_drop_rate=0.5, img_size=32),
            "patch_drop_rate",
        ),
        (
            "mae",
            partial(timm.create_model, "vit_tiny_patch16_224", pos_embed="none", img_size=32),
            "pos_embed",
        ),
        ("mocov3", partial(timm.create_model, "resnet18", num_classes=0), "ResNet"),
        (
            "mocov3",
            partial(timm.create_model, "vit_tiny_patch16_224", global_pool="", num_classes=0),
            "one vector an image",
        ),
    ],
)
def test_backbones_that_cannot_are_refused_by_name(objective, make, named):
    found = objectives.load(objective)
    encoder = make()
    size = getattr(getattr(encoder, "patch_embed", None), "img_size", None) or (64, 64)
    framing = objectives.Framing(tuple(size), (16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(AttnprobeError, match=named) as error:
        found.build(encoder, found.config(**OPTIONS[objective]), framing)
    assert error.value.remedy


def test_a_decoder_whose_heads_do_not_divide_is_refused():
    with pytest.raises(AttnprobeError, match="divide by decoder_heads 5"):
        build("mae", decoder_heads=5)


@pytest.mark.parametrize("size", [(32, 32), (57, 40), (9, 90), (90, 9), (1, 1)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_views_are_those_of_torchvision_to_the_bit(size, interpolation):
    framing = Framing((24, 24), (4, 4), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    crop = _views.crop(framing, 0.08, interpolation=interpolation)
    ours = _views.compose(framing, (crop, _views.flip(0.5), _views.sometimes(_views.Blur(), 0.5)))
    theirs = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                (24, 24), interpolation=transforms.InterpolationMode(interpolation)
            ),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomApply([_views.Blur()], 0.5),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(list(framing.mean), list(framing.std)),
            transforms.ToPureTensor(),
        ]
    )
    for seed in range(25):
        torch.manual_seed(seed)
        found = ours(image)
        torch.manual_seed(seed)
        assert torch.equal(found, theirs(image))
