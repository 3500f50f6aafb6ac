"""The command as a user runs it: the installed one, or the same in this process."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

COMMAND = Path(sys.executable).with_name("attnprobe")


def attnprobe(*arguments, cwd=None, status=0):
    """Run the installed command and check its exit code."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def here(*arguments, cwd=None, status=0):
    """Do what `attnprobe` does without a new process, which takes seconds to import torch."""
    from attnprobe.cli import main

    typed = ["attnprobe", *map(str, arguments)]
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.object(sys, "argv", typed),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    done = SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())
    assert ended.value.code == status, done.stdout + done.stderr
    return done
