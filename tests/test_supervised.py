"""Classification: layers' learning rates, mixing, views, and that it learns."""

import pickle
import random

import numpy as np
import pytest
import timm
import torch
from photographs import photograph
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from attnprobe import objectives
from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Clock, Framing

OBJECTIVE = objectives.load("supervised")
FRAMING = Framing((32, 32), (8, 8), (0.5,) * 3, (0.25,) * 3, classes=4)
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
CLOCK = Clock(3, 10)
PLAIN = {"auto_augment": "", "color_jitter": 0.0, "random_erasing": 0.0, "flip": 0.0}


def encoder(name="vit_tiny_patch16_224", *, classes=4, **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=classes, **{**TINY, **options})


def build(backbone=None, framing=FRAMING, **options):
    return OBJECTIVE.build(backbone or encoder(), OBJECTIVE.config(**options), framing)


def views(framing=FRAMING, **options):
    return OBJECTIVE.views(OBJECTIVE.config(**options), framing)


def seeded(view, image, seed=0):
    torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)  # noqa: NPY002
    return view(image)["image"]


def batch(count=8):
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn(count, 3, 32, 32, generator=generator),
        "label": torch.arange(count) % 4,
        "index": torch.arange(count) + 40,
    }


def test_learning_rates_decay_from_the_head_down_as_in_beit():
    module, decay = build(), 0.5
    optimizer = create_optimizer_v2(
        module, opt="adamw", lr=1.0, weight_decay=0.05, layer_decay=decay
    )
    scale = {
        id(weight): group["lr_scale"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    depth, seen = TINY["depth"], set()
    for name, weight in module.named_parameters():
        parts = name.split(".")
        if parts[1] in {"cls_token", "pos_embed", "patch_embed"}:
            layer = 0
        elif parts[1] == "blocks":
            layer = 1 + int(parts[2])
        else:  # norm and head; timm counts the norm with the last block
            layer = depth if parts[1] == "norm" else depth + 1
        seen.add(layer)
        assert scale[id(weight)] == pytest.approx(decay ** (depth + 1 - layer)), name
    assert seen == set(range(depth + 2))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beit_base_patch16_224", {}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "window_size": 4, "num_heads": (1, 2)}),
    ],
)
def test_layers_of_other_families_keep_their_groups(name, options):
    sizes = {"depth": None, **options} if "depths" in options else options
    arguments = {key: value for key, value in {**TINY, **sizes}.items() if value is not None}
    arguments["patch_size"] = 4 if "swin" in name else 8
    backbone = timm.create_model(name, num_classes=4, **arguments)

    def groups(model):
        found = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
        return {key.removeprefix("encoder."): value for key, value in found.items()}

    expected = groups(backbone)
    assert len(set(expected.values())) > 2
    assert groups(build(backbone)) == expected


def test_tokens_and_biases_are_not_decayed():
    module = build()
    assert {"encoder.cls_token", "encoder.pos_embed"} <= module.no_weight_decay()
    optimizer = create_optimizer_v2(module, opt="adamw", lr=1.0, weight_decay=0.05)
    decayed = {
        id(weight)
        for group in optimizer.param_groups
        for weight in group["params"]
        if group["weight_decay"]
    }
    for name, weight in module.named_parameters():
        matrix = weight.ndim > 1 and not name.endswith(("cls_token", "pos_embed"))
        assert (id(weight) in decayed) == matrix, name


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224"])
def test_without_mixing_the_loss_is_smoothed_cross_entropy(name):
    module, held = build(encoder(name), label_smoothing=0.2, mixup=0.0, cutmix=0.0), batch()
    assert OBJECTIVE.mix(OBJECTIVE.config(mixup=0.0, cutmix=0.0), FRAMING) is None
    found = OBJECTIVE.step(module, held, CLOCK)
    logits = module.encoder(held["image"])
    expected = F.cross_entropy(logits, held["label"], label_smoothing=0.2)
    torch.testing.assert_close(found["loss"], expected)
    assert found["top1"] == (logits.argmax(1) == held["label"]).float().mean()
    found["loss"].backward()
    for weight in module.parameters():
        assert (weight.grad is not None) == weight.requires_grad


def test_a_mixed_batch_is_learnt_from_its_probabilities():
    module, held = build(), batch()
    images = held["image"].clone()
    mixed = OBJECTIVE.mix(OBJECTIVE.config(cutmix=0.0, label_smoothing=0.0), FRAMING)(held, CLOCK)
    share = mixed["target"][0, 0].item()  # of class 0; its mirror image is of class 3
    assert mixed["target"].shape == (8, 4)
    torch.testing.assert_close(mixed["target"].sum(1), torch.ones(8))
    expected = images * share + images.flip(0) * (1 - share)
    torch.testing.assert_close(mixed["image"], expected)
    assert torch.equal(mixed["label"], held["label"])
    found = OBJECTIVE.step(module, mixed, CLOCK)
    assert found.keys() == {"loss"}
    soft = F.cross_entropy(module.encoder(mixed["image"]), mixed["target"])
    torch.testing.assert_close(found["loss"], soft)


def test_mixing_depends_on_update_and_images_alone():
    mix = OBJECTIVE.mix(OBJECTIVE.config(), FRAMING)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    first = mix(batch(), CLOCK)
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])
    np.random.rand(7)  # noqa: NPY002
    again = mix(batch(), CLOCK)
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["target"], again["target"])
    others = [mix(batch(), clock) for clock in (Clock(4, 10), Clock(3, 10, 1))]
    moved = {**batch(), "index": batch()["index"] + 1}
    assert all(not torch.equal(x["image"], first["image"]) for x in [*others, mix(moved, CLOCK)])
    with pytest.raises(AttnprobeError, match="in pairs, but 7"):
        mix(batch(7), CLOCK)


def test_views_are_normalised_and_drawn_from_the_generators():
    view, image = views(), photograph(0, (50, 40))
    one = seeded(view, image)
    assert one.shape == (3, 32, 32)
    assert one.dtype == torch.float32
    assert torch.equal(seeded(view, image), one)
    assert not torch.equal(seeded(view, image, 1), one)
    assert torch.equal(seeded(pickle.loads(pickle.dumps(view)), image), one)
    white = seeded(views(**PLAIN), Image.new("RGB", (40, 40), "white"))
    torch.testing.assert_close(white, torch.full((3, 32, 32), 2.0))


def test_no_bits_at_all_are_black_in_any_pillow():
    image = Image.new("RGB", (40, 40), "white")
    for policy in ("rand-m10-n1-inc1", "augmix-m10-w1-d1", "v0"):
        view = views(**{**PLAIN, "auto_augment": policy})
        seen = [seeded(view, image, seed) for seed in range(200)]
        assert all(torch.isfinite(found).all() for found in seen)
    view = views(**{**PLAIN, "auto_augment": "rand-m10-n1-inc1-p1"})
    darkest = [float(seeded(view, image, seed).max()) for seed in range(100)]
    assert min(darkest) == -2.0


def test_padding_crop_shifts_by_whole_pixels_within_the_border():
    image = photograph(3, (32, 32))
    view = views(**PLAIN, padding_crop=4)
    padded = Image.new("RGB", (40, 40))
    padded.paste(image, (4, 4))
    pixels = torch.from_numpy(np.asarray(padded).copy()).permute(2, 0, 1) / 255
    wanted = {}
    for y in range(9):
        for x in range(9):
            wanted[(y, x)] = (pixels[:, y : y + 32, x : x + 32] - 0.5) / 0.25
    shifts = set()
    for seed in range(30):
        found = seeded(view, image, seed)
        shifts |= {k for k, v in wanted.items() if torch.allclose(v, found, atol=1e-5)}
    assert len(shifts) > 10
    assert seeded(view, photograph(3, (50, 40))).shape == (3, 32, 32)
    large = Framing((96, 96), (16, 16), (0.5,) * 3, (0.5,) * 3, classes=4)
    with pytest.raises(AttnprobeError, match="up to 64 pixels"):
        views(large, padding_crop=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto_augment": "nonsense"}, "timm knows no augmentation 'nonsense'"),
        ({"auto_augment": "rand-z9"}, "timm knows no augmentation 'rand-z9'"),
        ({"crop_min": 0.0}, "crops from 0.0 to 1.0"),
        ({"crop_min": 0.5, "crop_max": 0.2}, "crops from 0.5 to 0.2"),
    ],
)
def test_views_that_cannot_be_drawn_are_refused(options, message):
    with pytest.raises(AttnprobeError, match=message) as caught:
        views(**options)
    assert caught.value.remedy


def test_a_backbone_of_other_classes_is_refused():
    with pytest.raises(AttnprobeError, match=r"\(1, 10\) for one image, but the data has 4"):
        build(encoder(classes=10))
    with pytest.raises(AttnprobeError, match="has 0 classes"):
        build(encoder(classes=0), Framing((32, 32), (8, 8), (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(AttnprobeError, match=r"label_smoothing is 1\.0"):
        build(label_smoothing=1.0)


def test_it_learns_a_handful_of_images():
    module, held = build(), batch()
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    losses = []
    for _ in range(25):
        found = OBJECTIVE.step(module, held, CLOCK)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        losses.append(found["loss"].item())
    assert losses[-1] < 0.6 * losses[0]
    assert found["top1"] == 1
    assert OBJECTIVE.encoder(module) is module.encoder
    assert isinstance(module.encoder, nn.Module)


@pytest.mark.parametrize("size", [(32, 32), (57, 40)])
def test_views_are_those_of_timm_and_torchvision(size):
    framing = Framing((32, 32), (4, 4), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26), "bicubic", 10)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ours = views(framing, padding_crop=4, auto_augment="", color_jitter=0.0)
    theirs = transforms.Compose(
        [
            transforms.Resize((32, 32), transforms.InterpolationMode.BICUBIC),
            transforms.RandomCrop((32, 32), padding=4),
            transforms.RandomHorizontalFlip(0.5),
            transforms.ColorJitter(0.0, 0.0, 0.0),  # draws an order, and changes nothing
            transforms.ToTensor(),
            transforms.Normalize(framing.mean, framing.std),
            RandomErasing(0.25, mode="pixel", device="cpu"),
        ]
    )
    for seed in range(25):
        torch.manual_seed(seed)
        random.seed(seed)
        found = ours(image)["image"]
        torch.manual_seed(seed)
        random.seed(seed)
        torch.testing.assert_close(found, theirs(image), rtol=0, atol=1e-6)
