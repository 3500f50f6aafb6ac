"""The compare command, end to end."""

import json
import shutil
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
import timm
import torch

from attnprobe.comparison import Comparison
from attnprobe.results import Result
from tests.installed import attnprobe, here

# in this process, where torch is loaded already, warnings are printed as they are to a user
pytestmark = pytest.mark.filterwarnings("always")

QUICK = ("--permutations", 1000, "--resamples", 1000)


@pytest.fixture(scope="module")
def deeper(tmp_path_factory):
    """A checkpoint of another depth, width and head count."""
    path = tmp_path_factory.mktemp("weights") / "deeper.pth"
    torch.manual_seed(1)
    options = {"img_size": 64, "depth": 4, "embed_dim": 128, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory, checkpoint, photos):
    out = tmp_path_factory.mktemp("runs") / "small"
    here("analyze", checkpoint, "-i", photos, "-o", out, "--limit", 8)
    return out


@pytest.fixture(scope="module")
def compared(tmp_path_factory, saved, deeper):
    out = tmp_path_factory.mktemp("compared") / "out"
    done = here("compare", saved, deeper, *QUICK, "--name", "A & <b>", "--name", "B", "-o", out)
    return done, out


def test_a_checkpoint_is_measured_as_the_saved_run_beside_it_was(compared):
    done, out = compared
    first, second = (Result.load(folder) for folder in sorted((out / "runs").iterdir()))
    assert first.provenance.images_sha256 == second.provenance.images_sha256
    assert second.provenance.images == 8
    assert (first.name, second.name) == ("A & <b>", "B")
    assert "local in every layer" in done.stdout.lower()
    assert "open" in done.stderr


def test_the_folder_holds_tables_page_and_models(compared):
    _, out = compared
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("config.toml", "manifest.json", "summary.csv", "verdicts.csv", "report.html", "log.txt"),
        *("tables", "runs"),
    }
    verdicts = pd.read_csv(out / "verdicts.csv")
    assert {"claim", "statement", "verdict", "evidence", "value", "low", "high"} <= set(verdicts)
    page = (out / "report.html").read_text()
    assert "A &amp; &lt;b&gt;" in page
    assert "A & <b>" not in page.replace("A \\u0026 \\u003cb\\u003e", "")
    assert Comparison.load(out).results[0].name == "A & <b>"


def test_its_page_is_drawn_again_without_torch(compared, tmp_path):
    _, out = compared
    code = """
import sys
for name in ("torch", "timm", "torchvision"):
    sys.modules[name] = None
from attnprobe.cli import main
main(["report", sys.argv[1], "-o", sys.argv[2]])
"""
    page = tmp_path / "page.html"
    subprocess.run([sys.executable, "-c", code, str(out), str(page)], check=True)
    assert page.read_text() == (out / "report.html").read_text()


def test_json_and_thresholds(saved, tmp_path):
    options = ("--threshold", "local=0.2", "--match-heads", "--json", "-o", tmp_path / "out")
    done = here("compare", saved, saved, *QUICK, *options)
    found = json.loads(done.stdout)
    rows = [row for row in found["verdicts"] if row["claim"] == "local_everywhere"]
    assert {row["limit"] for row in rows if row["model_b"] < 0} == {0.2}
    assert {row["verdict"] for row in rows if row["model_b"] >= 0} == {"not decided"}
    assert {row["metric"] for row in found["overall"]} == {"distance", "entropy", "head_kl"}
    assert (tmp_path / "out" / "tables" / "assignment.parquet").is_file()


def test_a_comparison_repeats_from_its_config(compared, saved, deeper, tmp_path):
    _, out = compared
    config = tomllib.loads((out / "config.toml").read_text())
    assert "trust" not in config
    again = tmp_path / "again"
    here("compare", saved, deeper, "--config", out / "config.toml", "-o", again)
    for name in ("verdicts.csv", "summary.csv"):
        assert (again / name).read_text() == (out / name).read_text()


def test_two_checkpoints_without_any_saved_run(checkpoint, deeper, photos, tmp_path):
    done = here("compare", checkpoint, deeper, "-i", photos, "-m", "distance", *QUICK, cwd=tmp_path)
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name == "compare-small-deeper"
    assert "holds no per-image values of entropy" in done.stdout or "entropy" in done.stderr


def test_other_images_are_refused(saved, checkpoint, photos, tmp_path):
    options = ("-i", photos, "--limit", 7, "-o", tmp_path / "out", *QUICK)
    done = here("compare", saved, checkpoint, *options, status=1)
    assert "different images" in done.stderr
    assert "--resume" in done.stderr
    assert not (tmp_path / "out" / "report.html").exists()
    assert "interrupted" in here("report", tmp_path / "out", status=1).stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("one",), 2, "2 to 8"),
        (("a",) * 9, 2, "2 to 8"),
        (("a", "b", "--name", "x"), 2, "1 names were given for 2"),
        (("a", "b", "--name", "x", "--name", "x"), 2, "given twice"),
        (("a", "b", "--threshold", "local"), 2, "NAME=NUMBER"),
        (("a", "b", "--confidence", "1.5"), 2, "confidence"),
        (("nowhere.pth", "nothing.pth"), 1, "nowhere.pth"),
    ],
)
def test_refusals(arguments, status, message, tmp_path):
    done = here("compare", *arguments, cwd=tmp_path, status=status)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_saved_runs_of_other_images_are_refused_before_anything_is_measured(
    saved, checkpoint, photos, tmp_path
):
    other = tmp_path / "other"
    here("analyze", checkpoint, "-i", photos, "--limit", 7, "-m", "entropy", "-o", other)
    done = here("compare", saved, "nowhere.pth", other, "-o", tmp_path / "out", status=1)
    assert "different images" in done.stderr


def test_an_unknown_threshold_is_refused_before_any_work(saved, tmp_path):
    arguments = ("compare", saved, saved, "--threshold", "locall=1", "-o", tmp_path / "out")
    done = here(*arguments, status=1)
    assert "locall" in done.stderr
    assert "local_margin" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_run_is_named(saved, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(saved, broken)
    (broken / "samples" / "distance.parquet").write_bytes(b"nonsense")
    done = here("compare", saved, broken, "-o", tmp_path / "out", status=1)
    assert "distance.parquet" in done.stderr


def test_images_that_cannot_be_read_make_a_partial_comparison(checkpoint, photos, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(photos, mixed)
    (mixed / "half.jpg").write_bytes((photos / "1.jpg").read_bytes()[:500])
    arguments = ("compare", checkpoint, checkpoint, "-i", mixed, *QUICK, "-o", tmp_path / "out")
    done = here(*arguments, status=3)
    assert "1 images could not be read" in done.stderr
    assert "half.jpg" in (tmp_path / "out" / "log.txt").read_text()


def test_an_interruption_keeps_what_is_measured_and_resume_goes_on(
    checkpoint, deeper, photos, tmp_path
):
    out = tmp_path / "out"
    arguments = ("-i", photos, *QUICK, "-o", out)
    here("compare", checkpoint, tmp_path / "absent.pth", *arguments, status=1)
    (kept,) = (out / "runs").iterdir()
    before = (kept / "manifest.json").read_bytes()
    refused = here("compare", checkpoint, deeper, *arguments, status=1)
    assert "already holds a comparison" in refused.stderr
    done = here("compare", checkpoint, deeper, *arguments, "--resume")
    assert f"is finished; kept {kept.name}" in done.stderr
    assert (kept / "manifest.json").read_bytes() == before
    assert len(Comparison.load(out).results) == 2
    again = here("compare", checkpoint, deeper, *arguments, "--resume", "--limit", 7)
    assert again.stderr.count("measured again (changed: limit)") == 2


def test_help_names_a_way_in():
    assert "attnprobe compare mae.pth deit.pth" in attnprobe("compare", "--help").stdout
