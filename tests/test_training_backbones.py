"""Backbones of every family train, load again, and start from one another's weights."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import config, lines, npz, tensors

import attnprobe
from attnprobe.errors import AttnprobeError, PartialLoadError
from attnprobe.training import backbones, initialising
from attnprobe.training.engine import train

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
WINDOWED = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
SHARED = {"use_abs_pos_emb": False, "use_shared_rel_pos_bias": True, "use_rel_pos_bias": False}
OWN = {"use_abs_pos_emb": False, "use_shared_rel_pos_bias": False, "use_rel_pos_bias": True}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "model_args": WINDOWED}
MODELS = {
    "beit": {
        "model": "beit_base_patch16_224",
        "model_args": {**SMALL, **SHARED, "init_values": 0.1, "global_pool": "token"},
    },
    "registers": {"model": "vit_small_patch14_reg4_dinov2", "model_args": SMALL},
    "swin": {"model": "swin_tiny_patch4_window7_224", **SWIN},
    "swinv2": {"model": "swinv2_tiny_window8_256", **SWIN},
}
UNNAMED = {"model": "", "img_size": 0, "patch_size": 0, "model_args": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "train.npz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """One SimMIM run of each family."""
    root = tmp_path_factory.mktemp("trained")
    for name, values in MODELS.items():
        train(config("simmim", data, epochs=1, **values), root / name)
    return root


@pytest.mark.parametrize("name", MODELS)
def test_a_family_trains_and_loads(trained, name):
    loaded = attnprobe.load(trained / name / "checkpoint.safetensors")
    held = load_file(trained / name / "checkpoint.safetensors")
    assert all(torch.equal(loaded.module.state_dict()[key], held[key]) for key in held)
    assert torch.isfinite(torch.tensor(lines(trained / name)[-1]["loss"]))


@pytest.mark.parametrize("name", MODELS)
def test_fine_tuning_needs_no_model_name(trained, data, tmp_path, name):
    start = trained / name / "checkpoint.safetensors"
    values = {"init": str(start), "layer_decay": 0.65, "lr": 0.0, "epochs": 1, **UNNAMED}
    train(config("supervised", data, **values), tmp_path / "run")
    held, after = load_file(start), load_file(tmp_path / "run" / "checkpoint.safetensors")
    for key in held:
        if key in after:
            assert torch.equal(held[key], after[key]), key
    assert set(after) - set(held) <= {"head.weight", "head.bias", "head.fc.weight", "head.fc.bias"}


def test_a_shared_table_is_copied_to_every_layer(trained, data):
    own = {**MODELS["beit"]["model_args"], **OWN, "global_pool": "avg"}
    plan = config("supervised", data, **{**MODELS["beit"], "model_args": own})
    backbone = backbones.create(plan, classes=4)
    start = trained / "beit" / "checkpoint.safetensors"
    ledger = initialising.initialise(backbone, str(start))
    table = load_file(start)["rel_pos_bias.relative_position_bias_table"]
    for block in backbone.blocks:
        assert torch.equal(block.attn.relative_position_bias_table, table)
    assert set(ledger.missing) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("registers", {"img_size": 64}, "pos_embed"),
        ("beit", {"img_size": 64}, "rel_pos_bias.relative_position_bias_table"),
        (
            "swin",
            {"img_size": 48, "window_size": 6},
            "layers.0.blocks.0.attn.relative_position_bias_table",
        ),
    ],
)
def test_positions_are_resampled_to_another_size_and_it_is_said(trained, data, name, values, key):
    backbone = backbones.create(config("supervised", data, **{**MODELS[name], **values}), classes=0)
    ledger = initialising.initialise(backbone, str(trained / name / "checkpoint.safetensors"))
    assert any(line.startswith(f"{key}: to ") for line in ledger.resampled)
    old = load_file(trained / name / "checkpoint.safetensors")[key]
    new = backbone.state_dict()[key]
    assert new.shape != old.shape
    assert new.std() == pytest.approx(float(old.std()), rel=0.5)


def test_another_architecture_is_refused_by_name(trained, data):
    deeper = {**MODELS["registers"], "model_args": {**SMALL, "depth": 3}}
    backbone = backbones.create(config("supervised", data, **deeper), classes=0)
    with pytest.raises(PartialLoadError, match=r"no weights for blocks\.2\."):
        initialising.initialise(backbone, str(trained / "registers" / "checkpoint.safetensors"))
    wider = {**MODELS["registers"], "model_args": {**SMALL, "embed_dim": 64}}
    backbone = backbones.create(config("supervised", data, **wider), classes=0)
    with pytest.raises(PartialLoadError, match="has shape"):
        initialising.initialise(backbone, str(trained / "registers" / "checkpoint.safetensors"))


@pytest.mark.parametrize("drop_path", [0.0, 0.3])
def test_stochastic_depth_is_what_was_asked_for(data, drop_path):
    plan = config("simmim", data, drop_path=drop_path, **MODELS["swin"])
    rates = [getattr(m, "drop_prob", 0.0) for m in backbones.create(plan, classes=0).modules()]
    assert max(rates) == pytest.approx(drop_path)


def test_neither_model_nor_checkpoint_is_refused(data):
    with pytest.raises(AttnprobeError, match="no model was named"):
        backbones.settle(config("simmim", data, **UNNAMED))


def test_the_slow_encoder_starts_from_the_checkpoint_too(trained, data, tmp_path):
    values = {**MODELS["swin"], "init": str(trained / "swin" / "checkpoint.safetensors")}
    train(config("mocov3", data, epochs=1, lr=0.0, **values), tmp_path / "run")
    found, name = tensors(tmp_path / "run"), "layers.0.blocks.0.attn.qkv.weight"
    slow = found[f"objective.safetensors/momentum_encoder.{name}"]
    assert torch.allclose(slow, found[f"checkpoint.safetensors/{name}"], atol=1e-6)


def test_recomputing_blocks_changes_nothing(trained, data, tmp_path):
    plan = config("simmim", data, epochs=1, grad_checkpointing=True, **MODELS["beit"])
    train(plan, tmp_path / "run")
    one, two = tensors(trained / "beit"), tensors(tmp_path / "run")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_a_compiled_module_trains_under_the_same_names(trained, data, tmp_path, monkeypatch):
    compile_module = nn.Module.compile
    monkeypatch.setattr(  # the tracing without the C++ compiler
        nn.Module, "compile", lambda module: compile_module(module, backend="eager")
    )
    plan = config("simmim", data, epochs=1, compile=True, **MODELS["beit"])
    train(plan, tmp_path / "run")
    one, two = tensors(trained / "beit"), tensors(tmp_path / "run")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_last_blocks_are_left_out_on_purpose(trained, data, tmp_path):
    start = trained / "registers" / "checkpoint.safetensors"
    values = {"init": str(start), "drop_last": 1, "lr": 0.0, "epochs": 1, **UNNAMED}
    train(config("supervised", data, **values), tmp_path / "run")
    saved = tmp_path / "run" / "checkpoint.safetensors"
    held, after = load_file(start), load_file(saved)
    assert {key.split(".")[1] for key in after if key.startswith("blocks.")} == {"0"}
    kept = [key for key in after if not key.startswith("head")]
    assert all(torch.equal(held[key], after[key]) for key in kept)
    loaded = attnprobe.load(saved)
    assert len(loaded.module.blocks) == 1
    assert not loaded.ledger.missing
    assert loaded.spec.model_args["depth"] == 1
    assert "without its last 1 block(s)" in (tmp_path / "run" / "README.md").read_text()


def test_a_run_without_its_last_blocks_is_resumed(trained, data, tmp_path):
    start = trained / "registers" / "checkpoint.safetensors"
    plan = config("supervised", data, **{"init": str(start), "drop_last": 1, **UNNAMED}, epochs=1)
    train(plan, tmp_path / "run")
    assert train(plan, tmp_path / "run", resume=True).status == "finished"


def test_left_out_blocks_are_told_from_weights_the_model_lacks(trained, data):
    start = str(trained / "registers" / "checkpoint.safetensors")
    values = {**MODELS["registers"], "init": start, "drop_last": 1}
    plan = config("supervised", data, **values)
    backbone = backbones.create(plan, classes=0)
    ledger = initialising.initialise(backbone, start, drop_last=1)
    lost = [line for line in ledger.dropped if line.startswith("blocks.")]
    assert lost
    assert all(line.startswith("blocks.1.") and "on purpose" in line for line in lost)


def test_other_blocks_than_the_last_are_not_left_out(trained, data):
    start = trained / "registers" / "checkpoint.safetensors"  # of 2 blocks
    values = {**MODELS["registers"], "init": str(start), "drop_last": 1}
    deeper = {**values, "model_args": {**SMALL, "depth": 3}}
    backbone = backbones.create(config("supervised", data, **deeper), classes=0)
    with pytest.raises(PartialLoadError, match="2 blocks, not 3"):
        initialising.initialise(backbone, str(start), drop_last=1)


@pytest.mark.parametrize(
    ("name", "values", "cause"),
    [
        ("registers", {"drop_last": 2}, "has 2 blocks, so 2 cannot be left out"),
        ("registers", {"drop_last": 1, "init": ""}, "no checkpoint"),
        ("swin", {"drop_last": 1}, "no single stack of blocks"),
    ],
)
def test_blocks_that_cannot_be_left_out_are_refused(trained, data, tmp_path, name, values, cause):
    start = {"init": str(trained / name / "checkpoint.safetensors"), **MODELS[name]}
    with pytest.raises(AttnprobeError, match=cause):
        train(config("supervised", data, **{**start, **values}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_snapshots_begin_with_the_untrained_encoder(data, tmp_path):
    plan = config("simmim", data, epochs=2, snapshot_every=2, lr=0.0, **MODELS["registers"])
    train(plan, tmp_path / "run")
    snapshots = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.stem for path in snapshots] == ["epoch-0000", "epoch-0002"]
    first, last = map(load_file, snapshots)
    assert all(torch.equal(first[key], last[key]) for key in last)
