"""Exports: names of the official codes, strictly, and back again."""

import json

import pytest
import torch
from objective_references import BACKBONES, build
from safetensors.torch import save_file

import attnprobe
from attnprobe import exports
from attnprobe.errors import AttnprobeError, CheckpointError, OutputError

RUNS = [
    ("simmim", "beit, shared table", "simmim-vit"),
    ("simmim", "beit", "beit"),
    ("simmim", "swin", "simmim-swin"),
    ("simmim", "swin v2", "simmim-swinv2"),
    ("mae", "vit", "mae"),
    ("mocov3", "vit", "moco-v3"),
]


def write_run(folder, objective, family, **card):
    module = build(objective, family)
    with torch.no_grad():
        for item in module.parameters():
            item.add_(torch.randn_like(item), alpha=0.1)
    architecture, arguments = BACKBONES[family]
    heads = arguments["num_heads"]
    card = {
        "architecture": architecture,
        "model_args": {**arguments, "num_classes": 0},
        "heads": heads if isinstance(heads, int) else heads[0],
        "input_size": [3, 32, 32],
        "objective": "mim",
        "epoch": 3.0,
        **card,
    }
    state = {name: item.contiguous() for name, item in module.state_dict().items()}
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    rest = {k: v for k, v in state.items() if not k.startswith("encoder.")}
    folder.mkdir(exist_ok=True)
    told = {"attnprobe": json.dumps(card)}
    save_file(encoder, folder / "checkpoint.safetensors", told)
    save_file({k: v.clone() for k, v in rest.items()}, folder / "objective.safetensors", told)
    return encoder, rest


@pytest.mark.parametrize(("objective", "family", "layout"), RUNS)
def test_what_is_exported_loads_as_the_same_encoder(objective, family, layout, tmp_path):
    encoder, rest = write_run(tmp_path / "run", objective, family)
    out = exports.export(tmp_path / "run", tmp_path / "out" / "official.pth")
    assert [path.name for path in out.parent.iterdir()] == ["official.pth"]
    content = torch.load(out, weights_only=True)
    assert content["epoch"] == 3.0
    heads = BACKBONES[family][1]["num_heads"]
    loaded = attnprobe.load(out, heads=heads) if isinstance(heads, int) else attnprobe.load(out)
    assert loaded.spec.format == layout or loaded.spec.format.startswith("simmim")
    found = loaded.module.state_dict()
    assert len(encoder) > 10
    for name, tensor in encoder.items():
        assert torch.equal(found[name], tensor), name
    official = content["state_dict" if objective == "mocov3" else "model"]
    assert sum(t.numel() for t in rest.values()) <= sum(t.numel() for t in official.values())


def test_simmim_names_are_the_official_ones(tmp_path):
    encoder, rest = write_run(tmp_path, "simmim", "swin")
    model = torch.load(exports.export(tmp_path, tmp_path / "a.pth"), weights_only=True)["model"]
    assert torch.equal(model["encoder.mask_token"], rest["mask_token"])
    assert torch.equal(model["decoder.0.weight"], rest["decoder.0.weight"])
    moved = model["encoder.layers.0.downsample.reduction.weight"]
    assert torch.equal(moved, encoder["layers.1.downsample.reduction.weight"])
    assert not any(name.startswith("encoder.layers.1.downsample") for name in model)
    assert model["encoder.layers.0.blocks.1.attn_mask"].shape == (16, 16, 16)
    assert "encoder.layers.0.blocks.0.attn_mask" not in model
    index = model["encoder.layers.0.blocks.0.attn.relative_position_index"]
    assert index.shape == (16, 16)
    assert index[0, 0] == 24  # no shift: the centre of a 7 x 7 table


def test_swin_v2_has_its_coordinates(tmp_path):
    write_run(tmp_path, "simmim", "swin v2")
    model = torch.load(exports.export(tmp_path, tmp_path / "a.pth"), weights_only=True)["model"]
    table = model["encoder.layers.0.blocks.0.attn.relative_coords_table"]
    assert table.shape == (1, 7, 7, 2)
    assert not any(name.endswith("k_bias") for name in model)


def test_moco_names_are_the_official_ones(tmp_path):
    encoder, rest = write_run(tmp_path, "mocov3", "vit")
    state = torch.load(exports.export(tmp_path, tmp_path / "a.pth"), weights_only=True)
    state = state["state_dict"]
    assert all(name.startswith("module.") for name in state)
    for ours, theirs in (
        ("projector.0.weight", "base_encoder.head.0.weight"),
        ("momentum_projector.7.running_var", "momentum_encoder.head.7.running_var"),
        ("momentum_encoder.norm.weight", "momentum_encoder.norm.weight"),
        ("predictor.1.bias", "predictor.1.bias"),
    ):
        assert torch.equal(state[f"module.{theirs}"], rest[ours])
    assert torch.equal(state["module.base_encoder.norm.weight"], encoder["norm.weight"])
    assert len(state) == len(encoder) + len(rest)


@pytest.mark.parametrize(
    ("objective", "family", "named"),
    [
        ("simmim", "vit", "VisionTransformer"),
        ("simmim", "eva", "Eva"),
        ("mae", "vit with registers", "ls1.gamma"),
        ("mae", "vit without class token", "class token|fc_norm"),
        ("mocov3", "swin", "layers"),
    ],
)
def test_backbones_that_the_official_codes_lack_are_refused(objective, family, named, tmp_path):
    write_run(tmp_path, objective, family)
    with pytest.raises(AttnprobeError, match=named) as error:
        exports.export(tmp_path, tmp_path / "a.pth")
    assert error.value.remedy
    assert not (tmp_path / "a.pth").exists()


def test_an_existing_file_is_kept_unless_told(tmp_path):
    write_run(tmp_path, "mae", "vit")
    out = tmp_path / "a.pth"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        exports.export(tmp_path, out)
    assert out.read_text() == "mine"
    exports.export(tmp_path, out, overwrite=True)
    assert "model" in torch.load(out, weights_only=True)


def test_a_format_of_another_objective_is_refused(tmp_path):
    write_run(tmp_path, "mae", "vit")
    with pytest.raises(AttnprobeError, match="simmim holds simmim"):
        exports.export(tmp_path, tmp_path / "a.pth", "simmim")
    with pytest.raises(AttnprobeError, match="unknown export"):
        exports.export(tmp_path, tmp_path / "a.pth", "deit")


def test_runs_without_weights_are_refused_by_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint\.safetensors"):
        exports.export(tmp_path, tmp_path / "a.pth")
    write_run(tmp_path, "mae", "vit")
    (tmp_path / "objective.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match=r"objective\.safetensors"):
        exports.export(tmp_path, tmp_path / "a.pth")


def test_weights_of_two_moments_are_refused(tmp_path):
    _, rest = write_run(tmp_path, "mae", "vit")
    later = {"attnprobe": json.dumps({"epoch": 4.0})}
    save_file({k: v.clone() for k, v in rest.items()}, tmp_path / "objective.safetensors", later)
    with pytest.raises(CheckpointError, match=r"3\.0 and 4\.0"):
        exports.export(tmp_path, tmp_path / "a.pth")


def test_supervised_runs_have_no_official_format(tmp_path):
    write_run(tmp_path, "mae", "vit")
    told = {"attnprobe": json.dumps({"epoch": 3.0})}
    save_file({"other": torch.ones(1)}, tmp_path / "objective.safetensors", told)
    with pytest.raises(AttnprobeError, match="no official format"):
        exports.export(tmp_path, tmp_path / "a.pth")


def test_a_card_that_names_no_model_is_refused(tmp_path):
    write_run(tmp_path, "simmim", "swin", architecture="no_such_model")
    with pytest.raises(AttnprobeError, match="no_such_model"):
        exports.export(tmp_path, tmp_path / "a.pth")


@pytest.mark.parametrize("name", exports.names())
def test_every_format_says_what_it_holds(name):
    found = exports.load(name)
    assert found.name == name
    assert found.description
    assert found.objectives
