"""A folder is held by one command; the workers of one that was killed are waited for."""

import subprocess
import sys
import time

import pytest

from attnprobe import locking
from attnprobe.errors import OutputError

HELD = """
import os, sys, time
from pathlib import Path
from attnprobe import locking

lock = locking.hold(Path(sys.argv[1]), "held", "wait")
if os.fork() == 0:  # a worker, which outlives its command for a while
    time.sleep(1)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_workers_of_a_killed_command_are_waited_for(tmp_path):
    path = tmp_path / "lock"
    killed = subprocess.run([sys.executable, "-c", HELD, str(path)], check=False)
    assert killed.returncode == -9
    began = time.monotonic()
    locking.hold(path, "held", "wait").close()
    assert 0.1 < time.monotonic() - began < locking.PATIENCE


def test_a_command_that_goes_on_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0.2)
    path = tmp_path / "lock"
    lock = locking.hold(path, "held", "wait")
    with pytest.raises(OutputError, match="held"):
        locking.hold(path, "held", "wait")
    lock.close()
    locking.hold(path, "held", "wait").close()


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "no locks")

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    locking.hold(tmp_path / "lock", "held", "wait").close()
