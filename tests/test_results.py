"""Saved results: identical when read back, written whole or not at all, torch-free."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("self", "link"),  # python 3.13 resolves it to itself, older ones say loop
        ("n" * 300, "name too long"),
        ("a/" + "n" * 300 + "/b", "name too long"),
        ("nul\0", "null"),
        ("/", "root"),
        ("file/run", "[Nn]ot a directory"),
    ],
)
def test_impossible_folders_are_refused_before_the_work(tmp_path, name, message):
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=f"(?i){message}|loop"):
        results.check_output(tmp_path / name, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [".", "new", "a/b/c", "a/../run", "link"])
def test_every_spelling_of_a_folder_is_written(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if name == "link":
        Path("link").symlink_to("target/below")
    before = list(Path().iterdir())
    results.check_output(name, overwrite=False)
    assert list(Path().iterdir()) == before
    for _ in range(2):
        folder = synthetic_result().save(name, overwrite=True)
        assert folder.is_absolute()
        assert Result.load(folder).name == synthetic_result().name
        assert not list(tmp_path.rglob(".attnprobe-*"))


@pytest.mark.parametrize("existing", [None, "empty", "result"])
@pytest.mark.parametrize("number", [1, 2, 5, 7])
def test_a_failed_rename_leaves_things_as_they_were(tmp_path, monkeypatch, existing, number):
    folder = tmp_path / "a" / "run"
    if existing == "empty":
        folder.mkdir(parents=True)
    if existing == "result":
        synthetic_result().save(folder)
        (folder / "old").touch()
    before, rename, calls = sorted(tmp_path.rglob("*")), Path.rename, []

    def fail(self, target):
        calls.append(target)
        if len(calls) == number:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    renames = {None: 1, "empty": 5, "result": 6 + 5}[existing]
    if number > renames:
        synthetic_result().save(folder, overwrite=True)
        assert len(calls) == renames
        return
    with pytest.raises(OutputError, match="Input/output"):
        synthetic_result().save(folder, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_half_written_after_a_failure(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OutputError, match="No space left"):
        synthetic_result().save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_leaves_the_old_result(tmp_path, monkeypatch):
    folder = synthetic_result().save(tmp_path / "run")
    monkeypatch.setattr(results, "write_into", lambda *_: 1 / 0)
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, None) for key in ("schema", "name", "config", "provenance", "model", "files")),
        ("schema", True),
        ("name", 3),
        ("model", []),
        ("provenance", {"images": "many"}),
        ("provenance", {"skipped": [3]}),
        ("files", {"tables": ["images", "layer_means"]}),
        ("files", {"tables": [3]}),
        ("files", {"tables": "layers"}),
    ],
)
def test_a_tampered_manifest_is_damaged(tmp_path, key, value):
    folder = synthetic_result().save(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[key] = value
    for content in (manifest, {name: item for name, item in manifest.items() if name != key}):
        (folder / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ResultError, match="damaged"):
            Result.load(folder)


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
