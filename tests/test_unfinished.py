"""The state of a measurement on disk: appended, cut off, damaged, written anew."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from attnprobe import locking, records, unfinished
from attnprobe.errors import OutputError
from attnprobe.parts import arrays_of
from attnprobe.unfinished import Unfinished
from tests.test_gathering import COUNT, VALUES, expected_samples, feed, fresh, result

STEP = 4


def fill(folder, stop=COUNT):
    """Measure candidates in batches of four, each put on disk."""
    state, gathered = Unfinished(folder, "run1"), fresh()
    state.claim()
    state.begin({"what": "a test"})
    for start in range(0, stop, STEP):
        numbers = range(start, min(start + STEP, stop))
        state.append(feed(gathered, numbers), gathered.waits)
    state.close()
    return state


def taken_up(folder, *, backwards=False):
    state, gathered = Unfinished(folder, "run1"), fresh()
    parts = list(state.parts(state.files("run1"), COUNT))
    for part in reversed(parts) if backwards else parts:
        gathered.add(part)
    return gathered


def check_rest(gathered):
    """Measure what is left; everything must be as in an undisturbed run."""
    left = [number for number in range(COUNT) if number not in gathered.seen]
    for start in range(0, len(left), STEP):
        feed(gathered, left[start : start + STEP])
    part, samples = result(gathered)
    np.testing.assert_array_equal(part.rows["entropy|1"], VALUES[1])
    np.testing.assert_allclose(samples, expected_samples(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stop", [0, 4, 16, 20, 37])
def test_a_run_is_taken_up_where_it_was(tmp_path, stop):
    fill(tmp_path, stop)
    for backwards in (False, True):
        gathered = taken_up(tmp_path, backwards=backwards)
        assert gathered.seen == set(range(stop))
        check_rest(gathered)


def test_a_record_that_was_cut_off_costs_one_batch(tmp_path):
    fill(tmp_path, 20)
    (path,) = tmp_path.glob("*.journal")
    data = path.read_bytes()
    for lost in (1, 40, 700):
        path.write_bytes(data[:-lost])
        assert taken_up(tmp_path).seen == set(range(16))
    path.write_bytes(data[:-1])
    check_rest(taken_up(tmp_path))


@pytest.mark.parametrize("at", [3, 20, 100, -50])
def test_damage_is_left_out_not_believed(tmp_path, at):
    fill(tmp_path, 20)
    (path,) = tmp_path.glob("*.journal")
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    gathered = taken_up(tmp_path)
    assert gathered.seen < set(range(20))
    check_rest(gathered)


def test_a_large_journal_is_written_anew_without_what_is_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "LARGE", 6000)
    fill(tmp_path, 32)
    names = Unfinished(tmp_path).files("run1")
    assert any(name.endswith(".segment") for name in names)
    gathered = taken_up(tmp_path)
    assert gathered.seen == set(range(32))
    assert gathered.whole().pending.tolist() == [30, 31]
    check_rest(gathered)


def test_a_crash_between_segment_and_journal_counts_nothing_twice(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(unfinished, "LARGE", 6000)
    unlink = type(tmp_path).unlink

    def keep(path, **options):
        kept[path] = path.read_bytes()
        unlink(path, **options)

    monkeypatch.setattr(type(tmp_path), "unlink", keep)
    fill(tmp_path, 32)
    assert kept
    for path, data in kept.items():
        path.write_bytes(data)
    gathered = taken_up(tmp_path)
    assert gathered.seen == set(range(32))
    check_rest(gathered)


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    state, gathered = Unfinished(tmp_path), fresh()

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "open", full)
    with pytest.raises(OutputError, match="No space left on device"):
        state.append(feed(gathered, range(4)), gathered.waits)


def test_a_damaged_state_is_refused(tmp_path):
    state = Unfinished(tmp_path / "state")
    assert state.facts() is None
    assert state.files() == []
    state.claim()
    state.run = "run1"
    state.begin({"what": 1})
    assert state.facts() == {"what": 1, "run": "run1"}
    for text in ("{", "[]", '"x"', "3", "{}", '{"run": 7}', "[" * 100_000):
        (state.folder / "state.json").write_text(text)
        with pytest.raises(OutputError, match="no state that can be read"):
            state.facts()
    state.close()
    unfinished.remove_all(state.folder)
    assert not state.folder.exists()


def test_a_second_command_into_the_same_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0)
    first, second = Unfinished(tmp_path), Unfinished(tmp_path)
    first.claim()
    with pytest.raises(OutputError, match="another command is measuring"):
        second.claim()
    first.close()
    second.claim()
    second.close()


def test_files_of_other_runs_are_not_taken_up(tmp_path):
    fill(tmp_path, 20)
    other = Unfinished(tmp_path, "run2")
    assert list(other.parts(other.files("run2"), COUNT)) == []
    other.forget_others()
    assert other.files() == []


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": np.array([0, 1, 2, 99])},
        {"numbers": np.array([0, 1, 2, -2])},
        {"numbers": np.array([0, 1, 2, 2])},
        {"numbers": np.array([0.0, 1, 2, 3])},
        {"rows": {"entropy|0": np.zeros((3, 2))}},
        {"digests": np.zeros((4, 31), np.uint8)},
        {"skipped": {99: "far"}},
        {"skipped": {1: "twice"}},
        {"pending": np.array([50])},
        {"layers": ("x",)},
    ],
)
def test_records_that_no_measurement_writes_are_left_out(tmp_path, change):
    state, gathered = Unfinished(tmp_path, "run1"), fresh()
    part = feed(gathered, range(4))
    for name, value in change.items():
        setattr(part, name, value)
    arrays, text = arrays_of(replace(part, layers=()) if "layers" in change else part)
    data = save(arrays, metadata={"facts": text if "layers" not in change else "[" * 10_000})
    head = records.HEAD.pack(records.MAGIC, len(data), zlib.crc32(data))
    (tmp_path / "run1-x.journal").write_bytes(head + data)
    assert list(state.parts(state.files("run1"), COUNT)) == []


def test_sums_and_waiting_features_do_not_pile_up_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "LARGE", 3000)
    state, gathered = Unfinished(tmp_path, "run1"), fresh()
    sizes = []
    for start in range(0, 36, 2):
        part = feed(gathered, range(start, start + 2))
        part.sums = {"0": np.full(300, 1.0)}  # 2.4 kB a record
        state.append(part, gathered.waits)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    state.close()
    assert sizes[-1] < 5 * sizes[0]
    again = fresh()
    for part in state.parts(state.files("run1"), COUNT):
        again.add(part)
    assert again.seen == set(range(36))
    np.testing.assert_array_equal(again.whole().sums["0"], np.full(300, 18.0))
