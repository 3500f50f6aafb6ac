"""What the README promises is what the project does."""

import re
from pathlib import Path

import pandas as pd
import torch
from planted import planted

import attnprobe
from attnprobe import claims, metrics, plugins
from attnprobe.cli import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_PARTIAL

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def rows(pattern):
    return set(re.findall(pattern, README, re.MULTILINE))


def test_the_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(import attnprobe.*?)```", README, re.DOTALL)
    exec(compile(snippet[1], "README.md", "exec"), {})
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert len(pd.read_csv(tmp_path / "out" / "summary.csv")) == 36  # 3 metrics of 12 layers


def test_a_module_of_ones_own_is_measured():
    snippet = re.search(r"```python\n(class Mine.*?)```", README, re.DOTALL)
    names = {"attnprobe": attnprobe, "torch": torch}
    exec(compile(snippet[1], "README.md", "exec"), names)
    assert names["result"].tables["distance"].groupby("layer").size().tolist() == [4, 4]


def test_every_command_is_named():
    assert rows(r"^\| `attnprobe (\w+)") == set(plugins.names("attnprobe.cli"))


def test_every_metric_is_named():
    assert rows(r"^\| `(\w+)` \| [^|]*\| [^|]*\| [^|]*\|$") == set(metrics.names())


def test_every_claim_is_named_with_its_limit():
    found = dict(re.findall(r"^\| `(\w+)` \|.*\| `(\w+=[\d.]+)` \|$", README, re.MULTILINE))
    limits = claims.defaults()
    known = map(claims.load, claims.names())
    assert found == {claim.name: f"{claim.limit}={limits[claim.limit]:g}" for claim in known}


def test_the_comparison_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("simmim", 0), ("deit", 1)):
        planted(name, seed=seed).save(f"runs/{name}")
    snippet = re.search(r"```python\n(found = attnprobe.compare.*?)```", README, re.DOTALL)
    exec(compile(snippet[1], "README.md", "exec"), {"attnprobe": attnprobe})
    assert (tmp_path / "simmim-deit.html").stat().st_size > 10_000


def test_exit_codes_are_the_real_ones():
    codes = {int(code) for code in rows(r"^\| (\d+) \|")}
    assert codes == {0, 2, EXIT_FAILURE, EXIT_PARTIAL, EXIT_INTERRUPTED}
