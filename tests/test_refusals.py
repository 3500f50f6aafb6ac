"""Bad checkpoints, images and outputs: one clear message, an exit code, nothing left behind."""

import os
import pickle

import pytest
import timm
import torch

from attnprobe.cli import main
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


def test_bad_checkpoints_get_one_clear_message(tmp_path, checkpoint, photos, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, word in bad_files(tmp_path, checkpoint).items():
        before = {path.name for path in tmp_path.iterdir()}
        done = command("analyze", name, "-i", photos, "-o", "out", status=1)
        assert done.err.startswith("error: "), done.err
        assert word in done.err
        assert "Next step: " in done.err
        assert {path.name for path in tmp_path.iterdir()} == before, name


def test_bad_images_get_one_clear_message(tmp_path, checkpoint, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    for index in range(3):
        (broken / f"{index}.jpg").write_bytes(b"\xff\xd8 broken")
    for source in ("none", "broken", "absent"):
        rest = ("-i", source, "-o", "out", "-m", "entropy")
        done = command("analyze", checkpoint, *rest, status=1)
        assert source in done.err
        assert "Next step: " in done.err
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


def refused(capsys, *arguments, status=2):
    """What the command says on stderr when it refuses, in this process."""
    with pytest.raises(SystemExit) as caught:
        main([str(item) for item in arguments])
    told = capsys.readouterr().err
    assert caught.value.code == status, told
    return told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trust = true", "only the command line can trust a file"),
        ("trust = false", "only the command line can trust a file"),
        ('config = "other.toml"', "cannot name another"),
        ("as_json = true", "--json"),
        ("dry_run = true", "--dry-run"),
        ("help = true", "--help"),
        ("batchsize = 4", "did you mean 'batch_size'"),
        ("batch_size = [1]", "'batch_size' must be an integer, got [1]"),
        ("[batch_size]\na = 1", "'batch_size' must be an integer, got {'a': 1}"),
        ("batch_size = 1.5", "'batch_size' must be an integer, got 1.5"),
        ("batch_size = true", "'batch_size' must be an integer, got True"),
        ("limit = 2020-01-01", "'limit' must be an integer"),
        ("limit = inf", "'limit' must be an integer, got inf"),
        ('seed = "1"', "'seed' must be an integer, got '1'"),
        ("overwrite = 7", "'overwrite' must be true or false, got 7"),
        ('name = ["a"]', "'name' must be a string, got ['a']"),
        ("metrics = 3", "'metrics' must be a string or a list of strings, got 3"),
        ('metrics = ["cka", 3]', "'metrics' must be a string or a list of strings"),
        ('precision = "int3"', "'precision': 'int3' is not one of"),
        ("limit = 0", "'limit': 0 is not in the range"),
        ("a" * 3 + " = [[[", "cannot read"),
    ],
)
def test_a_config_is_checked_as_it_is_read(tmp_path, capsys, text, words):
    (tmp_path / "c.toml").write_text(text)
    told = refused(capsys, "analyze", "absent.pth", "--config", tmp_path / "c.toml")
    assert words in " ".join(told.split())
    assert "c.toml" in told


def test_a_config_cannot_make_a_file_trusted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Bomb()}, "zipbomb.pth")
    (tmp_path / "c.toml").write_text("trust = true\n")
    refused(capsys, "analyze", "zipbomb.pth", "--config", "c.toml")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", ""),
        ("-o", "\udcff"),
        ("--name", "\udcff"),
        ("--name", "a\nb"),
        ("--name", "\x1b[31m"),
        ("--name", "n" * 201),
        ("--seed", "-1"),
        ("--resamples", "99"),
        ("--resamples", "100001"),
        ("-m", "cka,"),
    ],
)
def test_unusable_values_are_usage_errors_that_name_the_option(capsys, arguments):
    assert f"'{arguments[0]}'" in refused(capsys, "analyze", "absent.pth", *arguments).replace(
        "' / '--out'", "'"
    ).replace("' / '--metrics'", "'")
