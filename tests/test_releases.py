"""Releases that timm holds: a small model of each, saved bare, gives the same blocks again."""

import pytest
import timm
import torch
from random_modules import randomised

from attnprobe.checkpoints import load
from attnprobe.checkpoints.building import architecture, creating, plans
from attnprobe.errors import AttnprobeError, FormatError
from attnprobe.formats import convert, identify, unwrap

SMALL = {"embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 3}
GRID = {"img_size": 64, "patch_size": 16}
# positions that fit any size leave the size to the release's custom
FREE = {"img_size": 256, "patch_size": 64}
ROPE = {"img_size": 224, "patch_size": 56}
# timm's name: (what is changed to make it small, format)
MODELS = {
    "vit_base_patch16_224": (GRID, "timm"),
    "vit_base_patch16_224_miil": (GRID, "timm"),
    "vit_medium_patch16_gap_256": (GRID, "timm"),
    "vit_base_patch16_gap_224": (GRID, "timm"),
    "vit_base_patch16_siglip_gap_224": (GRID, "timm"),
    "vit_little_patch16_reg4_gap_256": (GRID, "timm"),
    "vit_base_patch16_reg4_gap_256": (GRID, "timm"),
    "vit_so150m_patch16_reg4_gap_256": (GRID, "timm"),
    "vit_so150m_patch16_reg4_map_256": (GRID, "siglip"),
    "vit_base_patch16_siglip_224": (GRID, "siglip"),
    "vit_base_patch16_clip_224": (GRID, "timm-clip"),
    "vit_small_patch14_dinov2": (GRID, "timm"),
    "vit_small_patch14_reg4_dinov2": (GRID, "timm"),
    "vit_giant_patch14_dinov2": (GRID, "timm"),
    "flexivit_small": (GRID, "timm"),
    "eva_large_patch14_196": (GRID, "timm"),
    "beit3_base_patch16_224": (GRID, "beit3"),
    "aimv2_large_patch14_224": ({**GRID, "num_heads": 1}, "aimv2"),
    "deit3_small_patch16_224": (GRID, "timm"),
    "deit_tiny_distilled_patch16_224": (GRID, "deit-distilled"),
    "beit_base_patch16_224": (GRID, "beit"),
    "beitv2_base_patch16_224": (GRID, "beit"),
    "eva_giant_patch14_224": (GRID, "eva"),
    "eva_giant_patch14_clip_224": (GRID, "eva"),
    "eva02_tiny_patch14_224": (GRID, "eva02"),
    "eva02_base_patch14_224": (GRID, "eva02"),
    "eva02_base_patch16_clip_224": (GRID, "eva02-clip"),
    "vit_small_patch16_dinov3": (FREE, "dinov3"),
    "vit_small_patch16_dinov3_qkvb": (FREE, "dinov3"),
    "vit_small_plus_patch16_dinov3": (FREE, "dinov3"),
    "vit_7b_patch16_dinov3": (FREE, "dinov3"),
    "vit_medium_patch16_rope_reg1_gap_256": (FREE, "vit-rope-gap"),
    "vit_mediumd_patch16_rope_reg1_gap_256": (FREE, "vit-rope-gap"),
    "vit_small_patch16_rope_224": (ROPE, "vit-rope"),
    "vit_relpos_small_patch16_224": (ROPE, "vit-relpos"),
    "vit_relpos_medium_patch16_cls_224": (ROPE, "vit-relpos"),
    "vit_srelpos_small_patch16_224": (ROPE, "vit-relpos"),
}
# names under which timm has more than one model, or positions that no shape tells
UNCLEAR = {
    "vit_base_patch16_rpn_224": GRID,
    "vit_relpos_medium_patch16_rpn_224": GRID,
    "vit_pe_core_base_patch16_224": GRID,
    "vit_small_patch16_rope_mixed_224": GRID,
    "vit_pwee_patch16_reg1_gap_256": GRID,
    "vit_small_patch16_18x2_224": GRID,
    "vit_dwee_patch16_reg1_gap_256": GRID,
}


def model(name, **options):
    return randomised(timm.create_model(name, **{**SMALL, **options}))


def outputs(module, images):
    found = []
    handles = [
        block.register_forward_hook(lambda *args: found.append(args[2])) for block in module.blocks
    ]
    with torch.no_grad():
        module.double().forward_features(images.double())
    for handle in handles:
        handle.remove()
    return found


def assert_same_blocks(loaded, module):
    torch.manual_seed(1)
    images = torch.randn(2, *loaded.spec.input_size)
    found, expected = outputs(loaded.module, images), outputs(module, images)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-6)


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_bare_file_of_timm_gives_the_same_blocks(name, tmp_path):
    options, layout = MODELS[name]
    module = model(name, **options)
    loaded = load(saved(tmp_path / "a.pth", module.state_dict()))
    assert loaded.spec.format == layout
    assert not loaded.ledger.dropped
    assert set(loaded.ledger.matched) == {key for key, _ in module.named_parameters()}
    assert_same_blocks(loaded, module)


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_no_shape_tells_is_refused_and_can_be_named(name, tmp_path):
    options = {key: value for key, value in SMALL.items() if key != "num_classes"}
    module = model(name, **options, **UNCLEAR[name])
    with pytest.raises(AttnprobeError, match="--arch"):
        load(saved(tmp_path / "a.pth", module.state_dict()))


def test_relative_tables_tell_the_grid(tmp_path):
    module = model("vit_relpos_small_patch16_224", **GRID, rel_pos_type="bias")
    loaded = load(saved(tmp_path / "a.pth", module.state_dict()))
    assert loaded.spec.input_size == (3, 64, 64)
    assert_same_blocks(loaded, module)


def test_a_quick_gelu_is_not_in_the_names_and_that_is_said(tmp_path):
    module = model("vit_base_patch32_clip_quickgelu_224", **GRID)
    loaded = load(saved(tmp_path / "a.pth", module.state_dict()))
    assert any("quick GELU (--arch" in line for line in loaded.spec.assumed)


def test_what_custom_alone_tells_is_said(tmp_path):
    for name, words in (
        ("vit_small_patch16_dinov3", ("input size 256 x 256", "rope_temperature 100")),
        ("eva02_base_patch14_224", ("ref_feat_shape (16, 16)",)),
        ("vit_base_patch16_siglip_224", ("exact GELU",)),
        ("aimv2_large_patch14_224", ("1 heads: width 128 / 128",)),
    ):
        module = model(name, **MODELS[name][0])
        assumed = load(saved(tmp_path / "a.pth", module.state_dict())).spec.assumed
        assert all(any(word in line for line in assumed) for word in words), (name, assumed)


def test_towers_inside_open_clip_leave_text_out(tmp_path):
    module = model("vit_base_patch16_siglip_224", **{**GRID, "num_classes": 0})
    state = {f"visual.trunk.{key}": value for key, value in module.state_dict().items()}
    state |= {"text.blocks.0.attn.qkv.weight": torch.ones(3, 1), "logit_scale": torch.ones(())}
    loaded = load(saved(tmp_path / "a.pth", {"state_dict": state}))
    assert loaded.spec.format == "siglip"
    assert loaded.spec.objective == "language-image"
    text = [line for line in loaded.ledger.dropped if line.startswith("text.blocks.0")]
    assert len(text) == 1
    assert "text tower" in text[0]
    assert_same_blocks(loaded, module)


def teacher_and_student(kind):
    options = {**SMALL, **GRID, "num_classes": 0, "num_heads": 4}
    teacher = timm.create_model("vit_base_patch16_224", **options)
    student = timm.create_model("vit_base_patch16_224", **options)
    content = {
        "teacher": {f"backbone.{k}": t for k, t in randomised(teacher).state_dict().items()},
        "student": {f"module.backbone.{k}": t for k, t in student.state_dict().items()},
        f"{kind}_loss": {"center": torch.zeros(1, 2)},
    }
    return content, teacher, student.eval()


@pytest.mark.parametrize("kind", ["dino", "ibot"])
def test_teacher_is_taken_unless_the_student_is_asked_for(kind, tmp_path):
    content, teacher, student = teacher_and_student(kind)
    path = saved(tmp_path / "a.pth", content)
    loaded = load(path, heads=4)
    assert loaded.spec.format == kind
    assert_same_blocks(loaded, teacher)
    assert_same_blocks(load(path, heads=4, part="student"), student)


def test_ijepa_takes_the_averaged_encoder_unless_asked(tmp_path):
    options = {**SMALL, **GRID, "num_classes": 0}
    parts = {name: timm.create_model("vit_base_patch16_gap_224", **options).eval()
             for name in ("encoder", "target_encoder")}  # fmt: skip
    content = {name: {f"module.{k}": t for k, t in part.state_dict().items()}
               for name, part in parts.items()}  # fmt: skip
    content["predictor"] = {"module.predictor_embed.weight": torch.ones(2, 2)}
    path = saved(tmp_path / "a.pth", content)
    loaded = load(path)
    assert loaded.spec.format == "ijepa"
    assert any("target_encoder" in note for note in loaded.spec.assumed)
    assert_same_blocks(loaded, parts["target_encoder"])
    assert_same_blocks(load(path, part="encoder"), parts["encoder"])


def test_moco_gives_either_encoder(tmp_path):
    options = {**SMALL, **GRID, "num_classes": 0}
    parts = {name: timm.create_model("vit_base_patch16_224", **options).eval()
             for name in ("base_encoder", "momentum_encoder")}  # fmt: skip
    state = {f"module.{name}.{k}": t for name, part in parts.items()
             for k, t in part.state_dict().items()}  # fmt: skip
    path = saved(tmp_path / "a.pth", {"arch": "vit_base", "state_dict": state})
    assert_same_blocks(load(path), parts["base_encoder"])
    assert_same_blocks(load(path, part="momentum_encoder"), parts["momentum_encoder"])


def test_maskfeat_has_no_last_norm(tmp_path):
    module = model("vit_base_patch16_224", **{**GRID, "num_classes": 0, "final_norm": False})
    state = module.state_dict() | {"pred_head.projections.0.weight": torch.ones(2, 128)}
    path = saved(tmp_path / "a.pth", {"model_state": state, "cfg": "", "epoch": 3})
    loaded = load(path)
    assert loaded.spec.format == "maskfeat"
    assert_same_blocks(loaded, module)


def test_a_gated_dinov2_in_training_names_is_read(tmp_path):
    module = model("vit_giant_patch14_dinov2", **{**GRID, "num_classes": 0})
    official = {
        key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value
        for key, value in module.state_dict().items()
    }
    state = {f"teacher.backbone.{key}": value for key, value in official.items()}
    state |= {f"student.backbone.{key}": value + 1 for key, value in official.items()}
    state["teacher.dino_head.mlp.0.weight"] = torch.ones(2, 2)
    loaded = load(saved(tmp_path / "a.pth", {"model": state, "iteration": 5}))
    assert loaded.spec.format == "dinov2"
    assert_same_blocks(loaded, module)


def eva02_with_buffers(**change):
    """An EVA-02 file as the official code saves it, with its rotary table beside the weights."""
    module = model("eva02_tiny_patch14_224", **GRID, ref_feat_shape=(3, 3))
    sines, cosines = module.rope.get_embed().chunk(2, -1)
    buffers = {"rope.freqs_sin": sines, "rope.freqs_cos": cosines} | change
    return module, module.state_dict() | buffers


def test_a_rotary_table_tells_heads_and_the_trained_grid(tmp_path):
    module, state = eva02_with_buffers()
    loaded = load(saved(tmp_path / "a.pth", state))
    assert loaded.spec.model_args["ref_feat_shape"] == (3, 3)
    assert not any("rotary" in line or "heads" in line for line in loaded.spec.assumed)
    assert_same_blocks(loaded, module)


def test_another_rotary_table_is_refused(tmp_path):
    _, state = eva02_with_buffers()
    state["rope.freqs_cos"] = state["rope.freqs_cos"].roll(1, -1)
    with pytest.raises(FormatError, match="rotary table"):
        load(saved(tmp_path / "a.pth", state))
    _, state = eva02_with_buffers(**{"rope.freqs_sin": torch.zeros(9, 64)})
    with pytest.raises(FormatError, match="9 places"):
        load(saved(tmp_path / "a.pth", state))


def test_other_periods_of_dinov3_are_refused(tmp_path):
    module = model("vit_small_patch16_dinov3", **FREE)
    state = module.state_dict() | {"rope_embed.periods": torch.linspace(1, 9, 16)}
    with pytest.raises(FormatError, match="base 100"):
        load(saved(tmp_path / "a.pth", state))


def test_a_bias_of_keys_is_kept_where_no_mask_takes_it_away(tmp_path):
    module = model("vit_small_patch16_dinov3_qkvb", **FREE, attn_type="rope")
    state = module.state_dict() | {"rope_embed.periods": module.rope.periods}
    loaded = load(saved(tmp_path / "a.pth", state))
    assert loaded.spec.format == "dinov3-unmasked"
    assert_same_blocks(loaded, module)


def test_norms_after_attention_are_known_by_the_published_size(tmp_path):
    options = {"embed_dim": 1792, "depth": 64, "num_heads": 16, "mlp_ratio": 1 / 64}
    with torch.device("meta"):
        module = timm.create_model("eva02_enormous_patch14_clip_224", **GRID, **options)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    plan = plan_of(shapes)
    assert plan.kwargs["use_post_norm"]
    assert plan.kwargs["num_heads"] == 16
    assert any("EVA-02-CLIP-E" in line for line in plan.assumed)


def plan_of(shapes):
    weights = unwrap({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    layout = identify(weights)
    return plans.plan(architecture.shapes_of(convert(weights, layout), layout, weights))


PUBLISHED = [
    *("vit_so400m_patch14_siglip_224", "vit_giantopt_patch16_siglip_256", "aimv2_huge_patch14_224"),
    *("vit_huge_patch14_clip_224", "vit_gigantic_patch14_clip_224", "eva_giant_patch14_224"),
    *("vit_giant_patch14_dinov2", "vit_huge_plus_patch16_dinov3", "vit_7b_patch16_dinov3"),
    *("vit_so150m_patch16_reg4_gap_256", "vit_huge_patch14_gap_224", "beit3_giant_patch14_224"),
    *("vit_relpos_base_patch16_224", "eva02_large_patch14_448", "vit_large_patch16_rope_224"),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_head_counts_are_known(name):
    with torch.device("meta"), creating.unwritten():
        module = timm.create_model(name)
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    heads = creating.heads(module)
    assert plan_of(shapes).kwargs["num_heads"] == heads[0]
