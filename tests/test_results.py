"""Saved results: identical when read back, written whole or not at all, torch-free."""

import json
import subprocess
import sys
from dataclasses import asdict

import pandas as pd
import pytest

from attnprobe import results
from attnprobe.errors import OutputError, ResultError
from attnprobe.results import Result
from tests.synthetic import synthetic_result


def test_round_trip(tmp_path):
    result = synthetic_result()
    folder = result.save(tmp_path / "run")
    again = Result.load(folder)
    assert asdict(again.provenance) == asdict(result.provenance)
    assert (again.name, again.config, again.model) == (result.name, result.config, result.model)
    for name, table in result.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_dtype=False)
    for name, table in result.samples.items():
        pd.testing.assert_frame_equal(again.samples[name], table, check_dtype=False)
    pd.testing.assert_frame_equal(again.layers, result.layers, check_dtype=False)


def test_folder_layout(tmp_path):
    folder = synthetic_result().save(tmp_path / "run", texts={"log.txt": "hello\n"})
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "log.txt",
        "manifest.json",
        "samples",
        "summary.csv",
        "tables",
    }
    assert len(pd.read_csv(folder / "summary.csv")) > 0


def test_an_existing_folder_is_not_touched(tmp_path):
    result = synthetic_result()
    folder = result.save(tmp_path / "run")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match="already holds files"):
        result.save(folder)
    assert (folder / "manifest.json").read_bytes() == before
    result.save(folder, overwrite=True)


def test_overwrite_never_replaces_what_is_no_result(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not a result folder"):
        synthetic_result().save(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(OutputError, match="not a folder"):
        synthetic_result().save(tmp_path / "run")


def test_nothing_half_written_after_a_failure(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OutputError, match="No space left"):
        synthetic_result().save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_leaves_the_old_result(tmp_path, monkeypatch):
    folder = synthetic_result().save(tmp_path / "run")
    monkeypatch.setattr(results, "_write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        synthetic_result().save(folder, overwrite=True)
    assert Result.load(folder).name == synthetic_result().name
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"schema": 1}', "damaged"),
        ('{"schema": 99, "files": {"tables": []}}', "upgrade"),
    ],
)
def test_damaged_manifests(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        Result.load(tmp_path)


def test_missing_and_damaged_tables(tmp_path):
    folder = synthetic_result().save(tmp_path / "run")
    (folder / "tables" / "distance.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ResultError, match=r"distance\.parquet"):
        Result.load(folder)
    with pytest.raises(ResultError, match="no manifest"):
        Result.load(tmp_path / "absent")


def test_table_names_cannot_leave_the_folder(tmp_path):
    folder = synthetic_result().save(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["tables"].append("../../secret")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResultError, match="damaged"):
        Result.load(folder)


def test_results_load_and_report_without_torch(tmp_path):
    folder = synthetic_result().save(tmp_path / "run")
    code = """
import sys
for name in ("torch", "timm", "torchvision"):
    sys.modules[name] = None
import attnprobe
result = attnprobe.Result.load(sys.argv[1])
attnprobe.report([result], sys.argv[2])
"""
    page = tmp_path / "page.html"
    subprocess.run([sys.executable, "-c", code, str(folder), str(page)], check=True)
    assert page.stat().st_size > 10_000
