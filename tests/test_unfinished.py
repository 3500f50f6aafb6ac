"""The state of a measurement on disk: appended, cut off, damaged, written anew."""

import numpy as np
import pytest

from attnprobe import unfinished
from attnprobe.errors import OutputError
from attnprobe.unfinished import Unfinished
from tests.test_gathering import COUNT, VALUES, expected_samples, feed, fresh, result

STEP = 4


def fill(folder, stop=COUNT):
    """Measure candidates in batches of four, each put on disk."""
    state, gathered = Unfinished(folder), fresh()
    state.begin({"what": "a test"})
    for start in range(0, stop, STEP):
        numbers = range(start, min(start + STEP, stop))
        state.append(feed(gathered, numbers), gathered.waits)
    state.close()
    return state


def taken_up(folder):
    state, gathered = Unfinished(folder), fresh()
    for part in state.parts(state.files()):
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
    gathered = taken_up(tmp_path)
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
    names = Unfinished(tmp_path).files()
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
    state.begin({"what": 1})
    assert state.facts() == {"what": 1}
    (state.folder / "state.json").write_text("{")
    with pytest.raises(OutputError, match="no state that can be read"):
        state.facts()
    state.remove()
    assert not state.folder.exists()
