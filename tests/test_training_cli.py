"""The training commands as people type them: run, resume, export, refuse."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from installed import COMMAND
from PIL import Image
from training_runs import npz, picture, tensors

import attnprobe
from attnprobe import plugins
from attnprobe.cli import attnprobe as cli
from attnprobe.cli import main
from attnprobe.training import states

TINY = (
    *("--model", "beit_base_patch16_224", "--img-size", "32", "--patch-size", "8"),
    *("--model-arg", "embed_dim=32", "--model-arg", "depth=2", "--model-arg", "num_heads=2"),
    *("--model-arg", "use_abs_pos_emb=false", "--model-arg", "use_shared_rel_pos_bias=true"),
    *("--model-arg", "use_rel_pos_bias=false", "--model-arg", "init_values=0.1"),
    *("--model-arg", "global_pool=token"),
    *("--batch-size", "12", "--epochs", "2", "--workers", "0", "--device", "cpu"),
    *("--mask-patch", "8", "--probe-limit", "8", "--warmup-epochs", "1"),
)


def run(*arguments, **kwargs):
    return CliRunner().invoke(cli, [str(item) for item in arguments], **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stranger's folder of JPEGs: classes, a broken file, a text file."""
    import numpy as np

    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(40):
        place = root / f"class{index % 4}"
        place.mkdir(exist_ok=True)
        (place / f"{index:03d}.jpg").write_bytes(picture(index % 4, generator))
    (root / "class0" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (root / "class0" / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The folder of a run through the installed command."""
    out = tmp_path_factory.mktemp("runs") / "simmim"
    done = subprocess.run(
        [COMMAND, "pretrain", "simmim", "--data", folder, *TINY, "-o", out, "--json"],
        capture_output=True,
        text=True,
    )
    return done, out


@pytest.mark.slow
def test_a_folder_of_jpegs_trains(finished):
    done, out = finished
    assert done.returncode == 3, done.stderr  # one image was broken
    told = json.loads(done.stdout)
    assert (told["status"], told["step"], told["steps"]) == ("finished", 6, 6)
    assert [name.split("/")[-1] for name in told["skipped"]] == ["broken.jpg"]
    names = {path.name for path in out.iterdir()}
    assert names >= {
        *("checkpoint.safetensors", "objective.safetensors", "best.safetensors", "README.md"),
        *("config.toml", "manifest.json", "metrics.jsonl", "report.html", "states", "probe"),
        *("tensorboard", "pictures"),
    }
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_was_trained_is_analyzed(finished, tmp_path):
    _, out = finished
    found = run("analyze", out / "checkpoint.safetensors", "--limit", "8", "-o", tmp_path / "a")
    assert found.exit_code == 0, found.output


def test_its_configuration_repeats_it_to_the_bit(finished, tmp_path):
    _, out = finished
    again = run("pretrain", "simmim", "--config", out / "config.toml", "-o", tmp_path / "again")
    assert again.exit_code in (0, 3), again.output
    one, two = tensors(out), tensors(tmp_path / "again")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_its_page_is_drawn_again(finished):
    _, out = finished
    assert run("report", out, "--overwrite").exit_code == 0


def test_it_exports_for_the_official_code(finished, tmp_path):
    _, out = finished
    path = tmp_path / "official.pth"
    found = run("export", out, "-o", path)
    assert found.exit_code == 0, found.output
    again = run("export", out, "-o", path)
    assert again.exit_code == 1
    assert "--overwrite" in str(again.exception)
    assert "mask_token" in str(list(torch.load(path, weights_only=True)["model"]))
    loaded = attnprobe.load(path, heads=2)
    name = "blocks.0.attn.proj.weight"
    assert torch.equal(
        loaded.module.state_dict()[name], tensors(out)[f"checkpoint.safetensors/{name}"]
    )


def test_resume_needs_no_other_option(finished):
    _, out = finished
    found = run("pretrain", "simmim", "--resume", "-o", out)
    assert found.exit_code in (0, 3), found.output


def test_print_config_reads_back(tmp_path):
    first = run("pretrain", "mae", "--recipe", "mae_vit_base_1600ep", "--print-config")
    assert first.exit_code == 0
    path = tmp_path / "c.toml"
    path.write_text(first.stdout)
    second = run("pretrain", "mae", "--config", path, "--print-config")
    assert second.stdout == first.stdout
    changed = run("pretrain", "mae", "--config", path, "--epochs", "3", "--print-config")
    assert 'recipe = "mae_vit_base_1600ep"' in changed.stdout
    assert "epochs = 3" in changed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pretrain", "simmim"), 1, "give --data"),
        (("pretrain", "simmim", "-d", "nowhere"), 1, "give --model"),
        (("pretrain", "simmim", "-d", "nowhere", "-m", "vit_tiny_patch16_224"), 1, "nowhere"),
        (("pretrain", "simclr"), 2, "No such command"),
        (("pretrain", "supervised"), 2, "No such command"),
        (("pretrain", "simmim", "--epochs", "x"), 2, "not a valid integer"),
        (("pretrain", "simmim", "--recipe", "mae_vit_base_1600ep"), 1, "is for 'mae'"),
        (("pretrain", "simmim", "--recipe", "none_such"), 1, "unknown recipe"),
        (("pretrain", "simmim", "--betas", "0.9,x"), 2, "give numbers"),
        (("pretrain", "simmim", "--model-arg", "depth"), 2, "not KEY=VALUE"),
        (("pretrain", "simmim", "--resume", "-o", "nothing-here"), 1, "no training run"),
        (("export", "nothing-here"), 1, "nothing-here"),
    ],
)
def test_refusals_say_what_and_what_next(arguments, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        *(("pretrain", name, "--help") for name in ("simmim", "mae", "mocov3")),
        *(("train", "supervised", "--help"), ("pretrain", "--help"), ("export", "--help")),
    ],
)
def test_help(arguments):
    found = run(*arguments)
    assert found.exit_code == 0
    assert "Usage" in found.output


@pytest.mark.parametrize("kind", ["recipes", "objectives", "exports"])
def test_lists(kind):
    rows = json.loads(run("list", kind, "--json").stdout)
    package = {"objectives": "attnprobe.objectives", "exports": "attnprobe.exports"}.get(kind)
    if package:
        assert [row["name"] for row in rows] == list(plugins.names(package))
    else:
        assert {"simmim_vit_base_800ep", "mae_vit_base_1600ep"} <= {row["name"] for row in rows}


@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_and_exits_130(tmp_path):
    data, out = npz(tmp_path / "train.npz"), tmp_path / "run"
    values = [*TINY, "--epochs", "500", "--workers", "2", "--probe-every", "0"]
    process = subprocess.Popen(
        [COMMAND, "pretrain", "simmim", "-d", data, *values, "-o", out],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    (step,) = states.steps(out)
    assert f"stopped after update {step} of 2000" in said
    assert "--resume" in said
    assert "Traceback" not in said


def test_nothing_is_left_half_written(finished):
    _, out = finished
    assert not list(Path(out).rglob("*.part"))
    with Image.open(next((Path(out) / "pictures").iterdir())) as image:
        image.verify()


def test_an_impatient_interrupt_says_how_to_go_on(tmp_path, folder, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("attnprobe.training.engine.train", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "simmim", "-d", str(folder), "-o", str(tmp_path / "run")])
    assert ended.value.code == 130
    assert "--resume goes on from the last state" in capsys.readouterr().err
