"""Ways to be silently wrong that were found once and must not come back."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import attnprobe
from attnprobe import doctor
from attnprobe.capture import capture
from attnprobe.errors import AttnprobeError, CaptureError
from attnprobe.kernels import blocked, reference
from attnprobe.types import MetricOptions
from tests.test_analysis import small_model
from tests.test_capture import build


@pytest.fixture(scope="module")
def images():
    return torch.randn(40, 3, 160, 160, generator=torch.Generator().manual_seed(1))


def test_measuring_is_fp32_under_autocast():
    model, images, _ = build("vit")
    worst = []

    def compare(inputs):
        found = blocked.attention_stats(inputs, doctor.ALL)
        assert found.entropy.dtype == torch.float32
        worst.append(doctor.deviation(found, reference.attention_stats(inputs, doctor.ALL)))

    with (
        torch.no_grad(),
        capture(model, compare, lambda features: None),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        model(images)
    assert len(worst) == 6
    assert max(worst) < 1e-5


def test_a_metric_named_twice_counts_once(images):
    result = attnprobe.analyze(small_model(), images[:9], ["entropy", "entropy"])
    assert len(result.samples["entropy"]) == 9 * 12


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ("cls",)),
        ({"reg_tokens": 2}, ("cls", "register1", "register2")),
        ({"class_token": False, "reg_tokens": 2, "global_pool": "avg"}, ("register1", "register2")),
    ],
)
def test_prefix_tokens_carry_their_own_names(arguments, names):
    model = timm.create_model("test_vit", pretrained=False, **arguments).eval()
    with torch.no_grad(), capture(model) as taps:
        model(torch.zeros(1, 3, 160, 160))
    assert taps.layers[0].grid.prefix_names == names


def test_distillation_is_no_register():
    model, images, _ = build("deit, distilled")
    result = attnprobe.analyze(model, images, ["prefix_mass"])
    assert list(result.tables["prefix_mass"]["token"][:2]) == ["cls", "dist"]


def test_registers_are_no_class_token(images):
    arguments = {"class_token": False, "reg_tokens": 2, "global_pool": "avg"}
    model = timm.create_model("test_vit", pretrained=False, **arguments)
    with pytest.raises(AttnprobeError, match="register1, register2"):
        attnprobe.analyze(model, images[:9], ["cka"], cka_tokens="cls")


def test_features_of_parallel_branches_are_the_block_output():
    model = timm.create_model(
        "vit_small_patch16_18x2_224", pretrained=False, img_size=64, depth=2
    ).eval()
    outputs = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, args, out: outputs.append(out))
    with torch.no_grad(), capture(model) as taps:
        model(torch.randn(1, 3, 64, 64))
    assert len(taps.attention) == 4
    assert torch.equal(taps.features[0].x, outputs[0])
    assert torch.equal(taps.features[-1].x, outputs[1])


@pytest.mark.filterwarnings("ignore:.*outnumber")
@pytest.mark.parametrize(
    ("count", "changes"), [(20, {}), (40, {"cka_estimator": "biased", "cka_batch": 80})]
)
def test_cka_gives_no_interval_that_means_nothing(images, count, changes):
    result = attnprobe.analyze(small_model(), images[:count], ["cka"], **changes)
    table = result.tables["cka"]
    assert table["value"].notna().all()
    assert table["low"].isna().all()


def test_cka_intervals_respect_the_largest_value(images):
    table = attnprobe.analyze(small_model(), images, ["cka"]).tables["cka"]
    assert (table["low"] < table["value"]).any()
    assert (table["high"] <= 1).all()


def test_the_average_over_images_first_is_named(images):
    result = attnprobe.analyze(small_model(), images[:9], ["distance"], average="attention")
    assert "averaged over images first" in result.tables["distance"]["definition"][0]


def test_cka_is_left_out_of_the_default_for_one_image(images):
    with pytest.warns(UserWarning, match="cka was left out"):
        result = attnprobe.analyze(small_model(), images[:1])
    assert "cka" not in result.tables
    with pytest.raises(AttnprobeError, match="at least 5"):
        attnprobe.analyze(small_model(), images[:1], ["cka"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_held_in_another_precision(images, dtype):
    truth = attnprobe.analyze(small_model(), images[:9], "entropy")
    found = attnprobe.analyze(small_model().to(dtype), images[:9], "entropy")
    assert found.provenance.precision == str(dtype).removeprefix("torch.")
    values = (result.tables["entropy"]["value"] for result in (found, truth))
    np.testing.assert_allclose(*values, rtol=1e-5 if dtype == torch.float64 else 0.1)


def test_the_module_is_left_as_it_was(images):
    model = small_model().train()
    model.blocks[1].eval()
    attnprobe.analyze(model, images[:9], ["entropy"])
    assert model.training
    assert model.blocks[0].attn.training
    assert not model.blocks[1].training


def test_shells_are_taken_off_and_compiled_modules_refused(images):
    shelled = attnprobe.analyze(nn.DataParallel(small_model()), images[:9], ["entropy"])
    plain = attnprobe.analyze(small_model(), images[:9], ["entropy"])
    assert shelled.tables["entropy"].equals(plain.tables["entropy"])
    model = small_model()
    model.compile()
    with pytest.raises(CaptureError, match="compiled in place"):
        attnprobe.analyze(model, images[:9], ["entropy"])


def test_a_pass_that_failed_is_not_blamed_on_its_layers():
    model, images, _ = build("vit")
    passes = iter([True, False])
    model.blocks[2].mlp.register_forward_pre_hook(lambda *_: 1 / 0 if next(passes, False) else None)
    with torch.no_grad(), capture(model) as taps:
        with pytest.raises(ZeroDivisionError):
            model(images)
        taps.attention.clear()
        model(images)
    assert len(taps.attention) == 6


@pytest.mark.parametrize("name", ["edgenext_xx_small", "coat_tiny", "halonet26t"])
def test_attention_that_cannot_be_placed_is_refused_by_name(name):
    model = timm.create_model(name, pretrained=False).eval()
    with pytest.raises(AttnprobeError):
        attnprobe.analyze(model, torch.zeros(1, *model.pretrained_cfg["input_size"]), ["entropy"])


def test_conventions_may_be_given_by_name(images):
    by_name = attnprobe.analyze(small_model(), images[:9], "distance", distance_unit="tokens")
    options = MetricOptions(distance_unit="tokens")
    by_record = attnprobe.analyze(small_model(), images[:9], "distance", options=options)
    assert by_name.tables["distance"].equals(by_record.tables["distance"])
    with pytest.raises(AttnprobeError, match="too few"):
        attnprobe.analyze(small_model(), images[:9], "distance", resamples=0)


@pytest.mark.parametrize(("depth", "said"), [(11, True), (12, False)])
def test_a_missing_last_block_is_said(tmp_path, depth, said):
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=depth)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    assumed = attnprobe.load(tmp_path / "m.pth").spec.assumed
    assert any("lost its last blocks" in line for line in assumed) == said
