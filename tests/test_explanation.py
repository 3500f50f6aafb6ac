"""What `inspect` says of a file that no format explains, and that its record then loads it."""

import json

import pytest
import timm
import torch
from random_modules import random_vit

from attnprobe import explanation
from attnprobe.checkpoints import load
from attnprobe.checkpoints.building.templates import FAMILIES, names
from attnprobe.errors import CheckpointError, FormatError

SPELLING = {
    "blocks.": "trunk.stage.",
    ".attn.qkv.": ".sa.in_proj.",
    ".attn.proj.": ".sa.out.",
    ".mlp.fc1.": ".ff.up.",
    ".mlp.fc2.": ".ff.down.",
    "patch_embed.proj.": "stem.conv.",
    ".norm1.": ".ln_a.",
    ".norm2.": ".ln_b.",
}


def spelled(name):
    for ours, theirs in SPELLING.items():
        name = name.replace(ours, theirs)
    return name


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """A plain ViT in names that nobody uses, in wrappers that nobody uses."""
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 1}
    module = random_vit(**options, num_classes=5)
    state = {f"net.{spelled(name)}": value for name, value in module.state_dict().items()}
    path = tmp_path_factory.mktemp("unknown") / "unknown.pth"
    torch.save({"weights": state, "step": 3}, path)
    return path, module


def test_it_says_what_the_file_holds(unknown):
    found = explanation.explain(unknown[0])
    assert found.container == "torch"
    assert set(found.beside) == {"step", "weights"}
    assert found.groups[0] == ("weights.net.trunk.stage", 36, 3 * 49984)
    assert found.patterns[0] == ("weights.net.trunk.stage.*.ff.up.weight", (256, 64), 3)
    assert sum(count for _, count, _ in found.groups) == len(unknown[1].state_dict())


def test_the_nearest_format_pairs_every_name_that_differs(unknown):
    nearest = explanation.explain(unknown[0]).nearest[0]
    assert (nearest.name, nearest.prefix) == ("timm", "weights.net.")
    assert 0 < nearest.distance < 1
    assert nearest.pairs == {spelled(name): name for name in nearest.missing}


def test_its_record_is_a_plugin_that_loads_the_file(unknown, tmp_path):
    path, module = unknown
    with pytest.raises(FormatError):
        load(path)
    plugin = tmp_path / "my_format.py"
    plugin.write_text(explanation.record(explanation.explain(path).nearest[0]))
    loaded = load(path, plugins=[plugin])
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))
    assert loaded.spec.format == "mine"


def test_a_file_of_a_known_format_is_at_distance_nought(tmp_path):
    module = random_vit(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    nearest = explanation.explain(tmp_path / "a.pth").nearest[0]
    assert (nearest.name, nearest.distance, nearest.pairs) == ("timm", 0.0, {})


def test_networks_that_are_no_transformers_are_far_from_everything(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "r.pth")
    assert explanation.explain(tmp_path / "r.pth").nearest[0].distance > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_name_what_a_family_needs(family):
    needed, allowed = names(family)
    assert set(needed) < set(allowed)
    assert any("attn" in name for name in needed)
    assert not any(name.startswith("head") for name in needed)


def test_inspect_explains_and_fails(unknown, command):
    done = command("inspect", unknown[0], status=1)
    assert "trunk.stage.*.sa.in_proj.weight -> blocks.*.attn.qkv.weight?" in done.out
    assert "FORMAT = attnprobe.Format(" in done.out
    assert "error:" in done.err
    told = json.loads(command("inspect", unknown[0], "--json", status=1).out)
    assert told["explanation"]["nearest"][0]["name"] == "timm"
    assert told["error"]


def test_what_cannot_be_read_has_no_explanation(tmp_path, command):
    (tmp_path / "a.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        explanation.explain(tmp_path / "a.pth")
    assert command("inspect", tmp_path / "a.pth", status=1).out == ""
