"""The examples run, and say what they say they do."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import attnprobe

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHORT = ("compare_saved", "my_metric", "pretrain_to_report", "probe_in_a_loop", "two_lines")


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """Run an example in this process; return where it wrote and what it printed."""

    def ran(name, *arguments):
        out = tmp_path / "out"
        typed = [name, *map(str, arguments), "--out", str(out)]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", typed)
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return out, capsys.readouterr().out

    return ran


def test_every_short_example_says_how_long_it_takes():
    for name in SHORT:
        opening = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
        assert re.search(r"\bseconds\b", opening), name
        assert f"python examples/{name}.py" in opening


def test_the_readme_lists_every_short_example():
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[(\w+)\.py\]\(examples/\1\.py\)", readme, re.MULTILINE))
    assert listed == {*SHORT, "my_format"}  # which is run by the tests of plug-ins


def test_two_lines(example):
    out, printed = example("two_lines")
    table = attnprobe.Result.load(out).tables["layer_means"]
    distance = table[table["metric"] == "distance"]
    assert len(distance) == 12
    assert f"{distance['value'].iloc[0]:.6f}" in printed
    assert out.with_suffix(".html").stat().st_size > 10_000


def test_my_metric(example):
    out, _ = example("my_metric")
    result = attnprobe.Result.load(out)
    table = result.tables["reach"]
    assert len(table) == 36
    assert table["value"].between(1, 64).all()
    assert (table["low"] <= table["high"]).all()
    assert "reach" in out.with_suffix(".html").read_text()


def test_the_probe_in_a_loop(example):
    out, printed = example("probe_in_a_loop")
    losses = [float(loss) for loss in re.findall(r"update \d+: loss (\S+)", printed)]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]
    assert len(list(out.glob("step-*"))) == 5
    assert out.with_suffix(".html").exists()


WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = {arguments!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_pretraining_to_the_report_and_its_runs_compared_without_torch(example, tmp_path):
    out, printed = example("pretrain_to_report")
    assert printed.count("$ attnprobe ") == 2
    assert (out / "compare" / "report.html").stat().st_size > 10_000
    assert (out / "simmim" / "report.html").stat().st_size > 10_000
    table = pd.read_parquet(out / "compare" / "tables" / "differences.parquet")
    assert set(table["metric"]) == {"distance", "entropy", "head_kl"}

    runs = sorted(map(str, (out / "compare" / "runs").iterdir()))
    place = tmp_path / "again"
    arguments = [str(EXAMPLES / "compare_saved.py"), *runs, "--out", str(place)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(
        attnprobe.Comparison.load(place).tables["verdicts"],
        attnprobe.Comparison.load(out / "compare").tables["verdicts"],
    )
    assert "SimMIM attends locally in every layer" in done.stdout
