"""The installed `attnprobe track`: what it writes, goes on with, and refuses."""

import json
import signal
import subprocess
import sys

import pandas as pd
import pytest
import timm
import torch

from attnprobe.results import Result
from attnprobe.tracking import Track
from tests.installed import COMMAND, attnprobe

EPOCHS = (1, 2, 10)
# in this process, where torch is loaded already, warnings are printed as they are to a user
pytestmark = pytest.mark.filterwarnings("always")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three checkpoints whose attention sharpens; by name, 10 comes before 2."""
    folder = tmp_path_factory.mktemp("training")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=64, depth=2, num_classes=0
    )
    paths = []
    for epoch in EPOCHS:
        with torch.no_grad():
            for block in model.blocks:
                block.attn.qkv.weight[:384].mul_(1.8)
        paths.append(folder / f"ckpt-{epoch}.pth")
        torch.save({"model": model.state_dict(), "epoch": epoch}, paths[-1])
    return sorted(paths, key=str)


@pytest.fixture(scope="module")
def out(tmp_path_factory, checkpoints, photos):
    out = tmp_path_factory.mktemp("tracks") / "mine"
    attnprobe("track", *checkpoints, "-i", photos, "-o", out, "--name", "mine")
    return out


def runs_of(out):
    return {path.name: path for path in (out / "runs").iterdir()}


def test_a_track_folder_holds_runs_tables_and_the_page(out):
    names = {path.name for path in out.iterdir()}
    expected = {"runs", "tables", "summary.csv", "manifest.json", "config.toml"}
    assert names == expected | {"report.html", "log.txt"}
    assert len(runs_of(out)) == 3
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["kind"], manifest["finished"]) == ("track", True)
    assert manifest["steps"] == [*EPOCHS]
    assert [name.split("-", 1)[1] for name in manifest["runs"]] == ["ckpt-1", "ckpt-2", "ckpt-10"]
    assert "trust" not in (out / "config.toml").read_text()
    assert "epoch that each checkpoint says" in (out / "log.txt").read_text()


def test_the_order_is_that_of_the_epochs_inside_the_files(out):
    track = Track.load(out)
    assert (track.name, track.steps, track.word) == ("mine", EPOCHS, "epoch")
    assert [result.model["epoch"] for result in track.results] == [*EPOCHS]
    entropy = pd.read_csv(out / "summary.csv").query("metric == 'entropy' and layer == 0")
    assert entropy["step"].tolist() == [*EPOCHS]
    # the sharper attention is, the lower its entropy
    assert entropy["value"].is_monotonic_decreasing


def test_every_run_is_a_result_of_its_own(out):
    track = Track.load(out)
    for path in runs_of(out).values():
        result = Result.load(path)
        assert result.samples["entropy"].image.nunique() == 9
        step = result.model["epoch"]
        heads = track.tables["track_heads"]
        here = heads[(heads["metric"] == "entropy") & (heads["step"] == step)]
        assert here["value"].tolist() == result.tables["entropy"]["value"].tolist()


def test_the_page_is_drawn_again_without_the_command(command, out, tmp_path):
    command("report", out, "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == (out / "report.html").read_text()


def test_json_is_alone_on_stdout_and_progress_on_stderr(command, checkpoints, photos, tmp_path):
    options = ("-i", photos, "-o", tmp_path / "t", "-m", "entropy", "--json")
    done = command("track", *checkpoints[:2], *options, "--steps", "5,0.5")
    found = json.loads(done.out)
    assert (found["steps"], found["word"]) == ([0.5, 5], "step")
    assert {row["metric"] for row in found["changes"]} == {"entropy"}
    assert len(found["settled"]) == 2
    for line in ("1 of 2: ckpt-1 measured in", "2 of 2: ckpt-10 measured in"):
        assert line in done.err
    assert "told by the steps that were given" in done.err


def test_tables_say_what_changed(command, out):
    done = command("track", *runs_of(out).values(), "-o", out.parent / "again")
    assert "Entropy" in done.out
    assert "3 checkpoints, epoch 1 to epoch 10" in done.out


def test_saved_runs_make_the_same_track_without_torch(out, tmp_path):
    paths = [str(path) for path in runs_of(out).values()]
    code = (
        "import sys\n"
        "from attnprobe.cli import main\n"
        f"try: main(['track', *{paths!r}, '-o', {str(tmp_path / 'again')!r}])\n"
        "except SystemExit as done:\n"
        "    sys.exit(done.code or bool({'torch', 'timm'} & set(sys.modules)) * 77)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "was measured before" in done.stderr
    tables = [Track.load(path).tables["track"] for path in (out, tmp_path / "again")]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished_and_resume_goes_on(
    command, checkpoints, photos, tmp_path, monkeypatch
):
    typed = ["track", *checkpoints, "-i", photos, "-o", "t"]
    process = subprocess.Popen(
        [COMMAND, *typed],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = []
    with process:
        for line in process.stderr:
            said.append(line)
            if line.startswith("1 of 3"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert "checkpoints are finished and kept in t; to go on" in said[-1]
    first = tmp_path / "t" / "runs" / "01-ckpt-1"
    before = (first / "manifest.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    assert "was interrupted" in command("report", "t", status=1).err
    assert "--resume" in command(*typed, status=1).err
    done = command(*typed, "--resume")
    assert "1 of 3: ckpt-1 is finished; kept 01-ckpt-1" in done.err
    assert "3 of 3: ckpt-2 measured in" in done.err
    assert (first / "manifest.json").read_bytes() == before
    assert Track.load(tmp_path / "t").steps == EPOCHS


def test_an_interruption_before_the_first_one_leaves_nothing(checkpoints, tmp_path):
    large = [f"timm:vit_large_patch16_224?pretrained={zero}" for zero in ("0", "00")]
    process = subprocess.Popen(
        [COMMAND, "track", *large, "-o", "t"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was written" in errors
    assert list(tmp_path.iterdir()) == []


def test_resume_measures_again_what_was_measured_otherwise(command, checkpoints, photos, tmp_path):
    fixed = ("-i", photos, "-o", tmp_path / "t", "--resamples", "100")
    command("track", *checkpoints, *fixed, "-m", "entropy", "--limit", "8")
    fewer = command("track", *checkpoints, *fixed, "-m", "entropy", "--resume")
    assert fewer.err.count("measured again (changed: limit)") == 3
    more = tmp_path / "more"
    more.mkdir()
    for path in sorted(photos.iterdir()):
        (more / path.name).write_bytes(path.read_bytes())
    (more / "0.jpg").write_bytes((photos / "1.jpg").read_bytes())
    options = ("-i", more, *fixed[2:], "-m", "entropy", "--resume", "--batch-size", "3")
    other = command("track", *checkpoints, *options)
    assert other.err.count("measured again (changed: images)") == 3
    same = command("track", *checkpoints, *options)
    assert same.err.count("is finished; kept") == 3
    assert len(runs_of(tmp_path / "t")) == 3


def test_resume_takes_a_later_checkpoint_in(command, out, checkpoints, photos, tmp_path):
    target = tmp_path / "t"
    command("track", *checkpoints[::2], "-i", photos, "-o", target)
    done = command("track", *checkpoints, "-i", photos, "-o", target, "--resume")
    assert done.err.count("is finished; kept") == 2
    assert done.err.count("measured in") == 1
    tables = [Track.load(path).tables["track"] for path in (out, target)]
    pd.testing.assert_frame_equal(*tables)


def test_a_track_repeats_from_its_config(command, out, tmp_path):
    again = tmp_path / "again"
    command("track", "--config", out / "config.toml", "-o", again)
    assert (again / "summary.csv").read_text() == (out / "summary.csv").read_text()


def test_overwrite_replaces_the_whole_track(command, checkpoints, photos, tmp_path):
    target = tmp_path / "t"
    options = ("-i", photos, "-o", target, "-m", "entropy")
    command("track", *checkpoints, *options)
    command("track", *checkpoints[:2], *options, "--overwrite")
    assert set(runs_of(target)) == {"01-ckpt-1", "02-ckpt-10"}
    assert Track.load(target).steps == (1, 10)
