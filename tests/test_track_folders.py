"""Tracks are saved and read again whole; what belongs to no track is refused by name."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic import synthetic_result
from tracks import checkpoint, run

from attnprobe.errors import OutputError, ResultError
from attnprobe.results import Result
from attnprobe.tracking import Track, track

STEPS = (10, 50, 100)


@pytest.fixture(scope="module")
def found():
    return track(run(STEPS), name="mine")


def test_checkpoints_that_do_not_belong_together_are_refused_by_name():
    one = checkpoint(0, name="one")
    other = replace(one, name="other")
    facts = replace(one.provenance, images_sha256="ef" * 32)
    renamed = one.tables["layer_means"].assign(definition="another, v9")
    wrong = {
        "different images": replace(other, provenance=facts),
        "different layers.*4 layers of 3 heads and 5": checkpoint(0, name="other", layers=5),
        "3 heads and 4 layers of 2": checkpoint(0, name="other", heads=2),
        "measured differently.*v": replace(other, tables={**one.tables, "layer_means": renamed}),
    }
    for words, result in wrong.items():
        with pytest.raises(
            ResultError, match=rf"one \(runs/one.pth\) and other .*{words}"
        ) as caught:
            track([one, result])
        assert "give checkpoints" in caught.value.remedy or "measure" in caught.value.remedy


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((1, 1), "ckpt_epoch_1 .* and ckpt_epoch_2 .* both stand at step 1"),
        ((1,), "1 steps were given for 2 checkpoints"),
        ((1, float("nan")), "cannot stand at step nan"),
    ],
)
def test_steps_that_cannot_be_are_refused(steps, words):
    with pytest.raises(ResultError, match=words):
        track(run((1, 2)), steps=steps)


def test_one_checkpoint_is_no_track():
    with pytest.raises(ResultError, match="two checkpoints or more, not 1"):
        track(run((1,)))


def test_checkpoints_without_a_metric_by_layer_are_refused():
    with pytest.raises(ResultError, match="holds no metric"):
        track([synthetic_result(name, metrics=()) for name in ("a1", "a2")])


def test_a_saved_track_is_the_same_track(found, tmp_path):
    loaded = Track.load(found.save(tmp_path / "track"))
    for name in ("name", "steps", "word", "source"):
        assert getattr(loaded, name) == getattr(found, name)
    assert [result.name for result in loaded.results] == [r.name for r in found.results]
    for name, table in found.tables.items():
        pd.testing.assert_frame_equal(loaded.tables[name], table)
    with pytest.raises(OutputError, match="already holds files"):
        found.save(tmp_path / "track")
    found.save(tmp_path / "track", overwrite=True)
    with pytest.raises(ResultError, match="holds a track, not the result of one model"):
        Result.load(tmp_path / "track")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"finished": true', '"finished": false', "was interrupted"),
        ('"01-ckpt_epoch_10"', '"../elsewhere"', "is no name"),
        ('"word": "epoch"', '"word": 3', "word cannot be 3"),
        ('"schema": 1', '"schema": 99', "newer attnprobe"),
        ('"settled"', '"unsettled"', "'settled' is missing"),
        ("10,", "1000,", "not ascending"),
    ],
)
def test_what_is_no_whole_track_is_refused(found, tmp_path, old, new, words):
    manifest = found.save(tmp_path / "track") / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    with pytest.raises(ResultError, match=words):
        Track.load(manifest.parent)


def test_tracks_never_import_torch(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from tracks import run\n"
        "from attnprobe.report import page_of, report\n"
        "from attnprobe.tracking import track\n"
        f"folder = track(run((1, 2), layers=2)).save({str(tmp_path / 'track')!r})\n"
        "page_of(folder)\n"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
