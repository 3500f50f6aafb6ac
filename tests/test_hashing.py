"""The digest beside the reading: what hashlib says, errors told, nothing waited for in vain."""

import hashlib
import threading
import time

import pytest

from attnprobe.checkpoints.reading.hashing import PIECE, digesting


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE + 17])
def test_it_is_hashlibs(tmp_path, size):
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    with digesting([tmp_path / "a"]) as digest:
        assert digest() == hashlib.sha256(content[:size]).hexdigest()
        assert digest() == digest()


def test_a_file_that_cannot_be_read_is_told_when_asked(tmp_path):
    with digesting([tmp_path / "absent"]) as digest, pytest.raises(FileNotFoundError):
        digest()


def test_leaving_gives_up_and_leaves_no_thread(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**34)  # sparse: hashing all of it would take ten seconds
    before, started = threading.active_count(), time.monotonic()
    with pytest.raises(KeyError), digesting([tmp_path / "large"]):
        raise KeyError
    assert time.monotonic() - started < 5
    assert threading.active_count() == before
