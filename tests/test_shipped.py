"""What ships: the sample images and the trained checkpoint."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from attnprobe import catalogue, objectives, shipped
from attnprobe.training.config import configure, read

FREE = {"CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "public domain"}
CHECKPOINTS = sorted(shipped.path("checkpoints").glob("*.safetensors"))
STUDIED = [path for path in CHECKPOINTS if path.with_suffix(".toml").exists()]
KINDS = {"simmim": "mim", "mae": "mim", "mocov3": "contrastive", "supervised": "supervised"}


@pytest.fixture(scope="module")
def attribution():
    text = (shipped.path("images") / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| \S+\.jpg ", line)
    ]
    return {row[0]: row[1:] for row in rows}


def photographs():
    return sorted(path for path in shipped.path("images").iterdir() if path.suffix == ".jpg")


def test_every_image_is_attributed_to_a_free_photograph(attribution):
    assert {path.name for path in photographs()} == set(attribution)
    for photograph, author, licence, package, _ in attribution.values():
        assert photograph
        assert author
        assert licence in FREE
        assert "Debian" in package or "PyPI" in package
    assert len(attribution) >= 64
    assert len({row[0] for row in attribution.values()}) >= 15


def test_crops_of_one_photograph_do_not_overlap(attribution):
    boxes = {name: [int(n) for n in row[-1].split(",")] for name, row in attribution.items()}
    for name, (left, top, right, bottom) in boxes.items():
        assert right - left == bottom - top >= 224
        for other, box in boxes.items():
            if other <= name or attribution[other][0] != attribution[name][0]:
                continue
            assert right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top


def test_images_are_large_enough_and_light_enough():
    assert sum(path.stat().st_size for path in photographs()) <= 3_000_000
    for path in photographs():
        with Image.open(path) as image:
            assert min(image.size) >= 224
            assert image.mode == "RGB"
            assert not image.getexif()
            assert np.asarray(image.convert("L"), dtype=float).std() > 5  # not blank


def test_all_checkpoints_together_are_light():
    assert CHECKPOINTS
    assert sum(path.stat().st_size for path in CHECKPOINTS) <= 25_000_000


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_loads_into_timm_and_is_finite(path):
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["attnprobe"])
    weights = load_file(path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    model = timm.create_model(card["architecture"], **card["model_args"])
    model.load_state_dict(weights, strict=True)
    assert model.blocks[0].attn.num_heads == card["heads"]
    assert card["name"] == path.stem
    assert card["objective"] == KINDS[path.stem.rpartition("_")[2]]
    given = model(torch.zeros(1, *card["input_size"]))
    assert given.shape == (1, card["model_args"]["num_classes"] or model.num_features)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_has_learned(path):
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["attnprobe"])
    fresh = timm.create_model(card["architecture"], **card["model_args"])
    # training moves biases away from the zeros that timm starts them with
    assert all(
        weights[name].abs().max() > 1e-3
        for name, value in fresh.state_dict().items()
        if name.endswith("fc1.bias") and not value.any()
    )


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_model_card_states_scores_and_how_to_retrain(path):
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert card.startswith(f"# {path.stem}\n")
    for score in re.findall(r"top-1[^|]*\| ([0-9.]+) %", card):
        assert float(score) > 10  # of ten classes
    for word in (
        "top-1",
        "seed",
        "JPEG re-encoded CIFAR-10",
        "epochs",
        "seconds",
        "licence",
        "Retrain",
    ):
        assert word in card


@pytest.mark.parametrize("path", STUDIED, ids=lambda path: path.stem)
def test_a_recipe_is_one_that_trains(path):
    objective = objectives.load(path.stem.rpartition("_")[2])
    config = configure(objective.name, objective.config, read(path.with_suffix(".toml")))
    assert config.loop.seed == 0
    assert "/" not in config.data.data + config.data.val


def test_every_checkpoint_is_in_the_catalogue():
    known = {
        record.source.removeprefix("shipped:")
        for record in catalogue.catalogue().values()
        if record.source.startswith("shipped:")
    }
    assert known == {path.name for path in CHECKPOINTS}
