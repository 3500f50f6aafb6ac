"""The command, end to end: happy paths and exit codes, some of them as installed."""

import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from attnprobe import cli as attnprobe_cli
from attnprobe.cli import _console, _texts, main
from tests.installed import COMMAND, attnprobe, here

# in this process, where torch is loaded already, warnings are printed as they are to a user
pytestmark = pytest.mark.filterwarnings("always")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, checkpoint, photos):
    out = tmp_path_factory.mktemp("runs") / "small"
    attnprobe("analyze", checkpoint, "-i", photos, "-o", out)
    return out


def test_help_lists_the_commands_quickly():
    attnprobe("--help")
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = attnprobe("--help")
        seconds.append(time.perf_counter() - started)
    for name in ("analyze", "inspect", "list", "report", "doctor", "demo"):
        assert f"  {name} " in done.stdout
    # 0.15 s on an idle core; the bound is loose because test machines are busy
    assert min(seconds) < 1.5


@pytest.mark.parametrize("name", ["analyze", "inspect", "list", "report", "doctor", "demo"])
def test_every_command_has_help(name):
    assert f"attnprobe {name} [OPTIONS]" in here(name, "--help").stdout


def test_analyze_writes_a_run_folder(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert {"config.toml", "manifest.json", "summary.csv", "report.html", "log.txt"} <= names
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert manifest["provenance"]["images"] == 9
    assert manifest["provenance"]["command"].startswith("attnprobe analyze")


def test_analyze_prints_a_table(checkpoint, photos, tmp_path):
    done = here("analyze", checkpoint, "-i", photos, "-o", tmp_path / "run")
    assert "Entropy" in done.stdout
    assert "report.html" in done.stderr


def test_json_is_alone_on_stdout(checkpoint, photos, tmp_path):
    options = ("-o", tmp_path / "run", "-m", "entropy,entropy", "--json")
    done = here("analyze", checkpoint, "-i", photos, *options)
    found = json.loads(done.stdout)
    assert found["images"] == 9
    assert found["assumed"]
    assert all(f"assumed: {line}\n" in done.stderr for line in found["assumed"])
    assert not done.stderr.startswith("\n")
    assert {row["metric"] for row in found["layer_means"]} == {"entropy"}


def test_a_run_repeats_from_its_config(run_folder, tmp_path, checkpoint):
    assert "trust" not in (run_folder / "config.toml").read_text()
    again = tmp_path / "again"
    here("analyze", checkpoint, "--config", run_folder / "config.toml", "-o", again)
    assert (again / "summary.csv").read_text() == (run_folder / "summary.csv").read_text()


def test_dry_run_writes_nothing(checkpoint, tmp_path):
    done = here("analyze", checkpoint, "--dry-run", cwd=tmp_path)
    assert "memory at batch 64" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_inspect(checkpoint, command):
    assert "blocks.1.attn" in command("inspect", checkpoint).out
    found = json.loads(command("inspect", checkpoint, "--json").out)
    assert found["model"]["input_size"] == [3, 64, 64]
    assert [row["heads"] for row in found["layers"]] == [3, 3]


def test_report_is_drawn_again(run_folder, tmp_path):
    here("report", run_folder, "-o", tmp_path / "page.html")
    assert "<html" in (tmp_path / "page.html").read_text()
    assert (
        "page.html exists"
        in here("report", run_folder, "-o", tmp_path / "page.html", status=1).stderr
    )


@pytest.mark.parametrize("kind", ["checkpoints", "claims", "formats", "metrics", "plots"])
def test_lists(kind):
    rows = json.loads(here("list", kind, "--json").stdout)
    assert len({row["name"] for row in rows}) == len(rows) >= 5


def test_names_to_copy_are_whole_at_any_width(monkeypatch, capsys):
    known = json.loads(here("list", "checkpoints", "--json").stdout)
    for columns in ("40", "100", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit):
            main(["list", "checkpoints"])
        lines = capsys.readouterr().out.splitlines()
        for row in known:
            assert any(row["name"] in line.split() for line in lines)
    assert max(map(len, lines)) > 100 or "architecture" not in lines[1]


@pytest.mark.filterwarnings("always")
def test_warnings_are_one_line_without_a_place(capsys, monkeypatch):
    def doubtful(*_, **__):
        warnings.warn("doubtful\nnumber", UserWarning, stacklevel=1)

    before = warnings.showwarning
    monkeypatch.setattr(attnprobe_cli.attnprobe, "main", doubtful)
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().err == "warning: doubtful number\n"
    assert warnings.showwarning is before


def test_a_label_is_no_markup_and_nothing_is_left_of_the_bar(capsys):
    with _console.progress("measuring [/] [red]{x}") as update:
        update(1, 2)
    assert capsys.readouterr().err == ""


def test_default_folders_are_one_safe_part():
    for text in ("a/b", "..", ".", "", "é" * 300, "x\0\n\x1b[0m", "\udcff", "a\\b", "/", "[/]"):
        for found in (_texts.folder_name(text, "w/c.pth"), _texts.folder_name(None, text)):
            assert Path(found).parts == (found,)
            assert found.isprintable()
            assert found not in ("..", ".")
            assert len(found.encode()) <= 80


def test_doctor_is_content():
    rows = json.loads(here("doctor", "--device", "cpu", "--json").stdout)
    assert len(rows) > 15
    assert all(row["passed"] for row in rows)


def test_doctor_fails_when_a_kernel_lies(tmp_path):
    code = (
        "from attnprobe.kernels import blocked, reference\n"
        "true = blocked.attention_stats\n"
        "def lie(*a, **k):\n"
        "    s = true(*a, **k)\n"
        "    return s._replace(distance=s.distance * 1.001)\n"
        "blocked.attention_stats = lie\n"
        "from attnprobe.cli import main\n"
        "main(['doctor', '--device', 'cpu'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "FAILED" in done.stdout


def test_broken_images_make_a_partial_result(checkpoint, photos, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in photos.iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "half.jpg").write_bytes((photos / "1.jpg").read_bytes()[:500])
    done = here("analyze", checkpoint, "-i", mixed, "-o", tmp_path / "run", status=3)
    assert "half.jpg" in done.stderr
    assert "half.jpg" in (tmp_path / "run" / "log.txt").read_text()


def test_an_existing_output_is_kept_unless_told(run_folder, checkpoint, photos):
    before = (run_folder / "manifest.json").read_bytes()
    done = here("analyze", checkpoint, "-i", photos, "-o", run_folder, status=1)
    assert "--overwrite" in done.stderr
    assert (run_folder / "manifest.json").read_bytes() == before


def test_usage_errors_exit_with_2(checkpoint):
    attnprobe("analyze", status=2)
    attnprobe("analyze", checkpoint, "--precision", "int3", status=2)
    attnprobe("nonsense", status=2)


def test_an_interrupt_writes_nothing(tmp_path, checkpoint):
    process = subprocess.Popen(
        [COMMAND, "analyze", "timm:vit_large_patch16_224?pretrained=0", "-o", "out"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # shells start background jobs with interrupts ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert list(tmp_path.iterdir()) == []
