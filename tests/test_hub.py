"""`timm:` sources: untrained, cached and unreachable weights, each said plainly."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from attnprobe.checkpoints import load
from attnprobe.checkpoints.origins import hub
from attnprobe.errors import CheckpointError

NAME = "vit_tiny_patch16_224"


def test_untrained_models_say_so():
    loaded = load(f"timm:{NAME}?pretrained=0", name="dry")
    assert (loaded.spec.name, loaded.spec.format) == ("dry", "timm-random")
    assert "UNTRAINED" in loaded.spec.assumed[0]
    assert set(loaded.ledger.missing) == set(loaded.module.state_dict())
    assert not loaded.module.training


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("timm:vit_tinny_patch16_224", "no model 'vit_tinny"),
        (f"timm:{NAME}?pretrained=2", "unknown option"),
        (f"timm:{NAME}.nonsense", "no weights 'nonsense'"),
    ],
)
def test_wrong_names_are_refused_with_a_remedy(source, cause):
    with pytest.raises(CheckpointError, match=cause) as caught:
        load(source)
    assert caught.value.remedy


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setattr(hub.network, "reachable", lambda _: False)


def cached(monkeypatch, path):
    monkeypatch.setattr(hub.huggingface_hub, "try_to_load_from_cache", lambda *_: path)


def test_an_unreachable_hub_says_which_file_to_place_where(monkeypatch, unreachable):
    cached(monkeypatch, None)
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        load(f"timm:{NAME}.augreg_in21k")
    assert f"./{NAME}.augreg_in21k/model.safetensors" in caught.value.remedy


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "ATTNPROBE_OFFLINE"])
def test_offline_makes_no_attempt(monkeypatch, switch):
    monkeypatch.setenv(switch, "1")
    monkeypatch.setattr("socket.create_connection", lambda *_: pytest.fail("asked the network"))
    cached(monkeypatch, None)
    with pytest.raises(CheckpointError, match=f"{switch} is set"):
        load(f"timm:{NAME}.augreg_in21k")


def test_weights_at_an_address_of_their_own_go_through_our_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNPROBE_CACHE", str(tmp_path))
    monkeypatch.setenv("ATTNPROBE_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="ijepa cannot be downloaded") as caught:
        load("timm:vit_huge_patch14_gap_224.in1k_ijepa")
    assert str(tmp_path) in caught.value.remedy
    place = tmp_path / "checkpoints" / "vit_huge_patch14_gap_224.in1k_ijepa"
    place.mkdir(parents=True)
    (place / "IN1K-vit.h.14-300e.pth.tar").write_bytes(b"weights")
    assert hub.fetch("timm:vit_huge_patch14_gap_224.in1k_ijepa").read_bytes() == b"weights"


def test_the_cached_file_is_read_when_the_hub_is_unreachable(tmp_path, monkeypatch, unreachable):
    state = timm.create_model(NAME).state_dict()
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    cached(monkeypatch, str(path))
    loaded = load(f"timm:{NAME}.augreg_in21k_ft_in1k")
    assert loaded.spec.mean == (0.5, 0.5, 0.5)
    assert set(loaded.ledger.matched) == set(state)
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, state[name]), name
