"""Folders as hubs and frameworks write them: configurations, shards, states of training."""

import hashlib
import json
import os
import shutil

import pytest
import timm
import torch
from random_modules import random_vit, randomised
from safetensors.torch import save_file

import attnprobe
from attnprobe.checkpoints.reading import configs
from attnprobe.errors import CheckpointError

INDEX = "model.safetensors.index.json"


def weights():
    return random_vit(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1).state_dict()


def same(loaded):
    found = loaded.module.state_dict()
    for name, tensor in weights().items():
        torch.testing.assert_close(found[name], tensor)


def sharded(folder, suffix=".safetensors", count=3):
    """Write a model in shards with their index; return tensor -> shard."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    shards = [f"{stem}-{i + 1:05d}-of-{count:05d}{suffix}" for i in range(count)]
    tensors = weights()
    places = {name: shards[i % count] for i, name in enumerate(tensors)}
    for shard in shards:
        part = {name: tensor for name, tensor in tensors.items() if places[name] == shard}
        save = save_file if suffix == ".safetensors" else torch.save
        save(part, folder / shard)
    write_index(folder, places, f"{stem}{suffix}.index.json")
    return places


def write_index(folder, places, name=INDEX):
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
    (folder / name).write_text(text)


# sharded models


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_one_model(suffix, tmp_path):
    places = sharded(tmp_path, suffix)
    loaded = attnprobe.load(tmp_path)
    same(loaded)
    assert loaded.spec.name == tmp_path.name
    digests = [
        hashlib.sha256((tmp_path / shard).read_bytes()).hexdigest()
        for shard in sorted(set(places.values()))
    ]
    assert loaded.spec.sha256 == hashlib.sha256("".join(digests).encode()).hexdigest()
    index = next(tmp_path.glob("*.index.json"))
    assert attnprobe.load(index).spec.sha256 == loaded.spec.sha256


def test_shards_may_be_links_as_in_a_hubs_cache(tmp_path):
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir()
    blobs.mkdir()
    sharded(snapshot)
    for i, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / str(i))
        path.symlink_to(f"../blobs/{i}")
    loaded = attnprobe.load(snapshot)
    same(loaded)
    assert loaded.spec.name == "snapshot"


def test_missing_shards_are_named(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of the 3 shards.*00002-of-00003"):
        attnprobe.load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../model-00001-of-00003.safetensors",
        "/etc/passwd.safetensors",
        "..\\a.safetensors",
        "a/b.safetensors",
        ".hidden.safetensors",
        "C:x.safetensors",
        "model.txt",
        "",
        7,
        None,
        ["model-00001-of-00003.safetensors"],
        "x\n.safetensors",
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    places = sharded(tmp_path)
    write_index(tmp_path, places | {next(iter(places)): name})
    with pytest.raises(CheckpointError, match="plain file name") as caught:
        attnprobe.load(tmp_path)
    assert "trust" in caught.value.remedy


def test_a_shard_that_is_no_regular_file_is_refused(tmp_path):
    sharded(tmp_path)
    shard = tmp_path / "model-00001-of-00003.safetensors"
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(CheckpointError, match="missing"):
        attnprobe.load(tmp_path)


def test_every_tensor_lies_where_the_index_says_once(tmp_path):
    places = sharded(tmp_path)
    first, *_, last = places
    moved = places | {first: places[last] if places[last] != places[first] else "x"}
    write_index(tmp_path, moved)
    with pytest.raises(CheckpointError, match=r"lacks|also holds"):
        attnprobe.load(tmp_path)
    write_index(tmp_path, {name: place for name, place in places.items() if name != first})
    with pytest.raises(CheckpointError, match=f"also holds {first}"):
        attnprobe.load(tmp_path)
    write_index(tmp_path, places | {"made.up": places[first]})
    with pytest.raises(CheckpointError, match=r"lacks made\.up"):
        attnprobe.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        "{",
        "[" * 50_000,
        '{"weight_map": {"a": "m.bin", "a": "n.bin"}}',
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_what_is_no_index_is_refused(text, tmp_path):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=r"weight_map|no readable JSON"):
        attnprobe.load(tmp_path)


# what frameworks leave in a folder


def test_the_model_is_taken_from_a_state_of_training(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "model_1.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", "training_args.bin", "scaler.pt"):
        torch.save({"state": {}}, tmp_path / name)
    (tmp_path / "random_states_0.pkl").write_bytes(b"\x80\x04.")
    loaded = attnprobe.load(tmp_path)
    same(loaded)
    told = " ".join(loaded.spec.assumed)
    assert "model_1.safetensors" in told
    assert "optimizer.bin" in told


def test_companions_are_no_candidates(tmp_path):
    torch.save(weights(), tmp_path / "encoder.pth")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    same(attnprobe.load(tmp_path))


def test_deepspeeds_latest_step_is_followed(tmp_path):
    step = tmp_path / "global_step7"
    step.mkdir()
    torch.save({"module": weights(), "ds_version": "1"}, step / "mp_rank_00_model_states.pt")
    torch.save({}, step / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (tmp_path / "latest").write_text("global_step7\n")
    loaded = attnprobe.load(tmp_path)
    same(loaded)
    assert loaded.spec.name == "global_step7"


@pytest.mark.parametrize("pointer", ["..", "/", "../x", "nowhere", "x" * 900])
def test_a_pointer_out_of_the_folder_is_not_followed(pointer, tmp_path):
    inner = tmp_path / "run"
    inner.mkdir()
    torch.save({"module": weights()}, tmp_path / "mp_rank_00_model_states.pt")
    (inner / "latest").write_text(pointer)
    with pytest.raises(CheckpointError, match="0 checkpoint files"):
        attnprobe.load(inner)


@pytest.mark.parametrize(
    ("files", "cause", "remedy"),
    [
        (["zero_pp_rank_0_mp_rank_00_model_states.pt"], "ZeRO", "zero_to_fp32.py"),
        (["mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"], "2 processes", "whole"),
        (["__0_0.distcp", ".metadata"], "distributed checkpoint", "dcp_to_torch"),
        (["pytorch_model_fsdp_0/__0_0.distcp"], "distributed checkpoint", "dcp_to_torch"),
    ],
)
def test_shares_of_processes_are_refused_with_what_to_run(files, cause, remedy, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"share")
    with pytest.raises(CheckpointError, match=cause) as caught:
        attnprobe.load(tmp_path)
    assert remedy in caught.value.remedy


def test_a_whole_model_beside_shares_is_taken(tmp_path):
    torch.save(weights(), tmp_path / "pytorch_model.bin")
    torch.save({}, tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    same(attnprobe.load(tmp_path))


# what is stated beside weights


@pytest.mark.parametrize("more", [{}, {"model_type": "timm_wrapper"}])
def test_timms_config_names_architecture_and_preprocessing(more, tmp_path):
    model = randomised(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    stated = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "model_args": {"img_size": 32},
        "pretrained_cfg": {
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "input_size": [3, 32, 32],
            "interpolation": "bilinear",
            "crop_pct": 0.75,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(stated | more))
    spec = attnprobe.load(tmp_path).spec
    assert spec.architecture == "vit_tiny_patch16_224"
    assert (spec.mean, spec.crop_pct, spec.interpolation) == ((0.1, 0.2, 0.3), 0.75, "bilinear")
    assert spec.input_size == (3, 32, 32)


def clip(**model):
    cfg = {"vision_cfg": {"width": 64, "head_width": 32, "patch_size": 8}, **model}
    return {"model_cfg": cfg, "preprocess_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}


@pytest.mark.parametrize(("quick", "act"), [(True, "quick_gelu"), (False, "gelu")])
def test_open_clips_config_states_heads_and_activation(quick, act, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(clip(quick_gelu=quick)))
    stated = configs.beside(tmp_path / "open_clip_model.safetensors")
    assert stated.facts["heads"] == 2
    assert stated.facts["act"] == act
    assert stated.facts["mean"] == [0.1] * 3


def test_open_clips_timm_tower_is_an_architecture(tmp_path):
    content = {"model_cfg": {"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    model = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=0))
    tower = {f"visual.trunk.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(tower | {"text.ln": torch.ones(3)}, tmp_path / "open_clip_model.safetensors")
    loaded = attnprobe.load(tmp_path)
    assert loaded.spec.architecture == "vit_tiny_patch16_224"
    torch.testing.assert_close(loaded.module.pos_embed, model.pos_embed)
    assert any(line.startswith("text.ln") for line in loaded.ledger.dropped)


@pytest.mark.parametrize(
    ("stated", "cause"),
    [
        ({"num_attention_heads": "three"}, "heads"),
        ({"num_attention_heads": 10**9}, "heads"),
        ({"num_attention_heads": True}, "heads"),
        ({"layer_norm_eps": -1}, "norm_eps"),
        ({"layer_norm_eps": float("nan")}, "norm_eps"),
        ({"image_size": 10**7}, "input_size"),
        ({"image_size": [32, "a"]}, "input_size"),
        ({"hidden_act": "exec"}, "hidden_act"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
        ({"patch_size": 0}, "patch_size"),
        ({"window_size": -4}, "window_size"),
        ({"pretrained_window_sizes": ["a"]}, "pretrained_window_sizes"),
        ({"hidden_size": 32.5}, "width"),
    ],
)
def test_absurd_statements_are_refused_by_name(stated, cause, tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **stated}))
    with pytest.raises(CheckpointError, match=cause) as caught:
        attnprobe.load(tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "/tmp/x.pth"},
        {"pretrained": True},
        {"pretrained_cfg_overlay": {"file": "x"}},
        {"embed_dim": 10**12},
        {"__class__": 1, "a b": 2},
        [],
    ],
)
def test_arguments_that_would_read_other_files_are_refused(arguments, tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    stated = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps({**stated, "model_args": arguments}))
    with pytest.raises(CheckpointError, match="model_args"):
        attnprobe.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 50_000, '{"a": 1, "a": 2}', " " * 9_000_000])
def test_unreadable_configs_are_refused(text, tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        attnprobe.load(tmp_path)


@pytest.mark.parametrize("content", [[], {"lr": 0.1}, {"architecture": 3}, {"model_type": None}])
def test_configs_of_something_else_are_left_alone(content, tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(content))
    same(attnprobe.load(tmp_path))


def test_a_config_counts_only_for_a_file_it_can_be_about(tmp_path):
    torch.save(weights(), tmp_path / "one.pth")
    (tmp_path / "config.json").write_text('{"model_type": "vit", "hidden_size": 48}')
    with pytest.raises(CheckpointError, match="width 48"):
        attnprobe.load(tmp_path / "one.pth")
    shutil.copy(tmp_path / "one.pth", tmp_path / "two.pth")
    same(attnprobe.load(tmp_path / "one.pth"))
