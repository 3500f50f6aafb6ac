"""Run a command that does not outlive who began it: `python -m attnprobe.reproduction.attended`.

The one who begins it holds the other end of standard input. When that closes, because it ended or
was killed, the command is asked to end too: two runs of a study would train into one folder.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

BY_SIGNAL = 128  # what shells add to the number of the signal that ended a command


def attend(command: Sequence[str]) -> int:
    """Run a command until it ends, hand SIGTERM on to it, and return its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def until_alone() -> None:
        sys.stdin.buffer.read()
        process.terminate()

    threading.Thread(target=until_alone, daemon=True).start()
    code = process.wait()
    return code if code >= 0 else BY_SIGNAL - code


if __name__ == "__main__":
    import os

    code = attend(sys.argv[1:])
    os._exit(code)  # the thread holds standard input, which a usual end would wait for
