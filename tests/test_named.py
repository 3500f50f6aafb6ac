"""Checkpoints whose architecture is named: by --arch, or by timm's config.json beside them."""

import pytest
import timm
import torch
from random_modules import randomised

from attnprobe.checkpoints import load
from attnprobe.errors import CheckpointError, PartialLoadError

# small models of families that no planner of shapes knows
OTHERS = ("levit_128s", "coat_tiny", "xcit_nano_12_p16_224", "efficientformer_l1")


def outputs(module, size=224):
    with torch.no_grad():
        return module.eval()(torch.linspace(-1, 1, 3 * size * size).view(1, 3, size, size))


@pytest.mark.parametrize("name", OTHERS)
def test_families_without_a_planner_load_by_name(tmp_path, name):
    module = randomised(timm.create_model(name, num_classes=5))
    wrapped = {f"module.{key}": value for key, value in module.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", arch=name)
    assert torch.equal(outputs(loaded.module), outputs(module))
    assert loaded.spec.architecture == name
    assert loaded.spec.format == "named"
    assert loaded.spec.asked == {"arch": name}
    assert f"architecture {name}: named, not read from shapes" in loaded.spec.assumed
    assert loaded.epoch == 3
    read = len(loaded.ledger.converted) + len(loaded.ledger.dropped)
    assert read == len(wrapped)


def test_running_statistics_are_weights(tmp_path):
    module = randomised(timm.create_model("levit_128s", num_classes=5))
    state = module.state_dict()
    state.pop("stem.conv1.bn.running_var")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(PartialLoadError, match=r"stem\.conv1\.bn\.running_var"):
        load(tmp_path / "a.pth", arch="levit_128s")


def test_a_tag_is_no_part_of_the_architecture(tmp_path):
    module = randomised(timm.create_model("test_vit"))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", arch="test_vit.r160_in1k")
    assert torch.equal(outputs(loaded.module, 160), outputs(module, 160))


def test_another_input_size_is_read_from_the_positions(tmp_path):
    module = randomised(timm.create_model("test_vit", img_size=96, num_classes=0))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", arch="test_vit")
    assert loaded.spec.input_size == (3, 96, 96)
    assert torch.equal(outputs(loaded.module, 96), outputs(module, 96))


def test_files_in_another_releases_names_go_through_the_formats(tmp_path):
    module = randomised(timm.create_model("swin_tiny_patch4_window7_224", num_classes=0))
    official = {
        (key.replace("layers.1.down", "layers.0.down").replace("layers.2.down", "layers.1.down")
            .replace("layers.3.down", "layers.2.down")): value
        for key, value in module.state_dict().items()
    }  # fmt: skip
    torch.save({"model": official}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", arch="swin_tiny_patch4_window7_224")
    assert torch.equal(outputs(loaded.module), outputs(module))


def test_the_wrong_architecture_is_refused_by_name(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "a.pth")
    with pytest.raises(PartialLoadError, match=r"weights .* missing|whole blocks"):
        load(tmp_path / "a.pth", arch="vit_tiny_patch16_224")
    with pytest.raises(PartialLoadError, match="none of the"):
        load(tmp_path / "a.pth", arch="levit_128s")
    with pytest.raises(CheckpointError, match="no model 'vit_tyni'") as caught:
        load(tmp_path / "a.pth", arch="vit_tyni")
    assert caught.value.remedy
