"""Load files in processes of their own, and tell what became of each.

Run as a script it warms up on the files named on its command line, then forks once for every
path that comes on its standard input; the parent of it all is `Loader`.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20
MEMORY = 4 * 2**30  # a child that needs so much more than its parent is stopped
TRUST = "--trust" in sys.argv  # to see that the attacks are real
WATCHED = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename"),
    *("os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.putenv", "os.kill"),
    *("os.truncate", "os.chdir", "subprocess.", "socket.", "ctypes.", "pickle."),
    *("shutil.", "tempfile.", "urllib.", "code.", "builtins.input", "pty.", "webbrowser."),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        kind: loaded, refused, raised (any other exception), killed or hung.
        cause: Of a refusal, else the exception or signal.
        remedy: Of a refusal.
        digest: Of the loaded tensors.
        seconds: Wall time.
        peak: Bytes of the resident set's high-water mark beyond that before.
        events: What Python's audit saw beyond what loading good files does.
    """

    kind: str
    cause: str = ""
    remedy: str = ""
    digest: str = ""
    seconds: float = 0.0
    peak: int = 0
    events: tuple[str, ...] = ()


class Loader:
    """A process that loads files, each in a child; started anew if it dies."""

    def __init__(self, warm, *, trust=False):
        self.command = [sys.executable, "-W", "ignore", __file__, *map(str, warm)]
        self.command += ["--trust"] if trust else []
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()

    def outcome(self, path):
        if self.process is None or self.process.poll() is not None:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        self.process.stdin.write(json.dumps(os.fsencode(path).hex()).encode() + b"\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        return Outcome(**{**found, "events": tuple(found["events"])})


def figure(field):
    """Return a figure of this process from the kernel, bytes; 0 where it has none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith(field + ":")]
    return 1024 * int(found[0]) if found else 0


def event_of(event, args):
    """Return a short name of an audited event, or nothing where it is harmless."""
    if event == "open":
        mode, flags = args[1] or "", args[2] or 0
        writing = set("wax+") & set(str(mode)) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return f"open to write {args[0]}" if writing else ""
    if event == "exec":
        name = getattr(args[0], "co_filename", "")
        return "" if Path(name).is_file() or name.startswith("<frozen") else f"exec {name}"
    if event == "compile":
        return "" if args[0] is None else f"compile {args[1]}"
    if event == "import" and args[0].partition(".")[0] in ("evil_module", "antigravity", "this"):
        return f"import {args[0]}"
    return event if event.startswith(WATCHED) else ""


def attempt(path, allowed):
    """Load a file in this process, watched and limited, and describe the outcome."""
    import torch

    from attnprobe.checkpoints import load
    from attnprobe.errors import AttnprobeError

    seen = set()

    def watch(event, args):
        name = event_of(event, args)
        if name:
            seen.add(name)

    torch.set_num_threads(1)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, start = figure("VmRSS"), time.perf_counter()
    if before:
        limit = figure("VmData") + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sys.addaudithook(watch)
    try:
        told = {"kind": "loaded", "digest": digest_of(load(path, trust=TRUST).module)}
    except AttnprobeError as error:
        told = {"kind": "refused", "cause": error.cause, "remedy": error.remedy}
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        told = {"kind": "raised", "cause": f"{type(error).__name__}: {str(error)[:300]}"}
    told |= {"seconds": time.perf_counter() - start, "peak": figure("VmHWM") - before}
    return told | {"events": sorted(seen - allowed)}


def digest_of(module):
    import hashlib

    state = hashlib.sha256()
    for name, tensor in module.named_parameters():
        state.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return state.hexdigest()


def apart(path, allowed, seconds=SECONDS):
    """Fork, load in the child, and wait for what it tells, or for its end."""
    reading, writing = os.pipe()
    start, child = time.perf_counter(), os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as told:
            json.dump(attempt(path, allowed), told)
            told.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = b""
        while True:
            left = start + seconds + 5 - time.perf_counter()
            if not select.select([answer], [], [], max(0.0, left))[0]:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"kind": "hung", "cause": f"more than {seconds} s", "events": []}
            piece = os.read(answer.fileno(), 2**16)
            text += piece
            if not piece:
                break
    status = os.waitpid(child, 0)[1]
    if not text:
        return {"kind": "killed", "cause": f"wait status {status}", "events": []}
    return json.loads(text)


def serve():
    warnings.simplefilter("ignore")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    good = [path for path in sys.argv[1:] if path != "--trust"]
    for path in good:
        attempt_here(path)
    allowed = set()
    for path in good:
        allowed |= set(apart(Path(path), set())["events"])
    gc.freeze()  # so that children do not copy what they only look at
    for line in sys.stdin:
        path = Path(os.fsdecode(bytes.fromhex(json.loads(line))))
        sys.stdout.write(json.dumps(apart(path, allowed)) + "\n")
        sys.stdout.flush()


def attempt_here(path):
    from attnprobe.checkpoints import load

    load(path)


if __name__ == "__main__":
    serve()
