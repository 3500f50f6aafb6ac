"""What `attnprobe track` refuses, and what it says when only a part could be done."""
# ruff: noqa: F811 - fixtures are named where they are used

import pytest
import timm
import torch
from test_track_cli import checkpoints  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("always")


def test_broken_images_make_a_partial_track(command, checkpoints, photos, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in photos.iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "half.jpg").write_bytes((photos / "1.jpg").read_bytes()[:500])
    options = ("-i", mixed, "-o", tmp_path / "t", "-m", "entropy")
    done = command("track", *checkpoints, *options, status=3)
    assert done.err.count("skipped half.jpg") == 1
    assert "half.jpg" in (tmp_path / "t" / "log.txt").read_text()
    again = command("track", *checkpoints, *options, "--resume", status=3)
    assert again.err.count("is finished; kept") == 3


def test_a_damaged_checkpoint_stops_the_track_and_says_how_to_go_on(
    command, checkpoints, photos, tmp_path
):
    damaged = tmp_path / "ckpt-3.pth"
    damaged.write_bytes(checkpoints[0].read_bytes()[:5000])
    options = ("-i", photos, "-o", tmp_path / "t", "-m", "entropy")
    done = command("track", *checkpoints, damaged, *options, status=1)
    assert "truncated or damaged" in done.err
    assert "3 of 4 checkpoints are finished and kept" in done.err
    command("track", *checkpoints, *options, "--resume")


def test_models_that_do_not_belong_together_are_refused(command, checkpoints, photos, tmp_path):
    torch.manual_seed(1)
    deeper = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=0)
    torch.save({"model": deeper.state_dict(), "epoch": 20}, tmp_path / "deep.pth")
    options = ("-i", photos, "-o", tmp_path / "t", "-m", "entropy")
    done = command("track", checkpoints[0], tmp_path / "deep.pth", *options, status=1)
    assert "ckpt-1 (" in done.err
    assert "2 layers of 3 heads and 3 layers of 3 heads" in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("one.pth",), 2, "two checkpoints or more"),
        (("one.pth", "one.pth"), 2, "given twice"),
        (("one.pth", "two.pth", "--resume", "--overwrite"), 2, "give one of them"),
        (("one.pth", "two.pth", "--steps", "1,x"), 2, "not a list of numbers"),
        (("one.pth", "two.pth", "--steps", "1"), 1, "1 steps were given for 2 checkpoints"),
        (("one.pth", "two.pth", "--steps", "1,1"), 1, "both stand at step 1"),
        (("one.pth", "two.pth"), 1, "no checkpoint at one.pth"),
    ],
)
def test_what_cannot_be_a_track_is_refused_before_any_work(
    command, arguments, status, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert words in command("track", *arguments, status=status).err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(command, checkpoints, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for flag in ("--resume", "--overwrite"):
        command("track", *checkpoints, "-o", tmp_path, flag, status=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
