"""Bad checkpoints, images and outputs: one clear message, an exit code, nothing left behind."""

import os
import pickle

import pytest
import timm
import torch

from tests.installed import attnprobe


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def bad_files(folder, checkpoint):
    """Files that are no usable checkpoint, with a word their message must contain."""
    whole = checkpoint.read_bytes()
    state = torch.load(checkpoint, weights_only=True)["model"]
    holey = {key: value for key, value in state.items() if not key.startswith("blocks.0.")}
    resnet = timm.create_model("test_resnet", pretrained=False).state_dict()
    (folder / "empty.pth").write_bytes(b"")
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pth").write_text("these are not weights\n" * 50)
    (folder / "bomb.pth").write_bytes(pickle.dumps({"model": Bomb()}))
    torch.save({"model": Bomb()}, folder / "zipbomb.pth")
    torch.save(resnet, folder / "resnet.pth")
    torch.save(holey, folder / "holey.pth")
    return {
        "empty.pth": "empty",
        "cut.pth": "cut.pth",
        "text.pth": "text.pth",
        "bomb.pth": "bomb.pth",
        "zipbomb.pth": "zipbomb.pth",
        "resnet.pth": "attention",
        "holey.pth": "blocks.0",
        "absent.pth": "absent.pth",
    }


def test_bad_checkpoints_get_one_clear_message(tmp_path, checkpoint, photos):
    for name, word in bad_files(tmp_path, checkpoint).items():
        before = {path.name for path in tmp_path.iterdir()}
        done = attnprobe("analyze", name, "-i", photos, "-o", "out", cwd=tmp_path, status=1)
        assert done.stderr.startswith("error: "), done.stderr
        assert word in done.stderr
        assert "Next step: " in done.stderr
        assert {path.name for path in tmp_path.iterdir()} == before, name


def test_bad_images_get_one_clear_message(tmp_path, checkpoint):
    (tmp_path / "none").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    for index in range(3):
        (broken / f"{index}.jpg").write_bytes(b"\xff\xd8 broken")
    for source in ("none", "broken", "absent"):
        done = attnprobe("analyze", checkpoint, "-i", source, "-o", "out", cwd=tmp_path, status=1)
        assert source in done.stderr
        assert "Next step: " in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_is_refused(tmp_path, checkpoint, photos):
    tmp_path.chmod(0o500)
    done = attnprobe("analyze", checkpoint, "-i", photos, "-o", tmp_path / "run", status=1)
    assert "cannot write" in done.stderr


def test_an_output_below_a_file_is_refused(tmp_path, checkpoint, photos):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "run"
    done = attnprobe("analyze", checkpoint, "-i", photos, "-o", out, status=1)
    assert "cannot write" in done.stderr
