"""Peak memory of one job in a process of its own: nothing before it, nothing beside it.

On a CPU the peak is the resident set's high-water mark, on CUDA `max_memory_allocated`. It is told
beyond the imports (models and images included) and beyond the models and images.
"""

import ctypes
import json
import resource
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from _common import OUT_OF_MEMORY, Settings, build, is_out_of_memory, pictures

SECONDS = 1200
ALL = ("distance", "entropy", "head_kl", "prefix_mass", "cka")


@dataclass(frozen=True)
class Peak:
    """What a process needed.

    Attributes:
        whole: Bytes beyond the imports.
        beyond: Bytes beyond the loaded models and images.
        failed: Why there is no number, or nothing.
    """

    whole: int = 0
    beyond: int = 0
    failed: str = ""


def measured_apart(section: str, job: dict[str, Any], settings: Settings) -> Peak:
    """Run `bench_<section>.alone(job)` in a new process; return its peak.

    Raises:
        RuntimeError: It fails by anything else than memory.
    """
    told = json.dumps({"section": section, "job": job, "settings": asdict(settings)})
    command = [sys.executable, str(Path(__file__).resolve()), told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode < 0:  # the kernel's out-of-memory killer leaves no message
        return Peak(failed=f"{OUT_OF_MEMORY} (signal {-done.returncode})")
    if done.returncode:
        raise RuntimeError(f"{section} {job}: {done.stderr.strip()[-2000:]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def resident(field: str = "VmRSS") -> int:
    """Return a figure of this process from the kernel, bytes."""
    status = Path("/proc/self/status")
    if not status.exists():  # no /proc: the high-water mark stands for both
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024 * int(lines[field].split()[0])


def forget_peak() -> None:
    """Set the high-water mark of this process to what it holds now, where the kernel can.

    What the allocator keeps of freed memory goes back first: reusing it would not count.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    place = Path("/proc/self/clear_refs")
    if place.exists():
        place.write_text("5")


def confine(more: int) -> None:
    """Let this process take that many bytes more, where the kernel can tell what it has."""
    if Path("/proc/self/status").exists():
        limit = resident("VmData") + more
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def warm_up(settings: Settings) -> None:
    """Import what analyze imports on first use, so that it does not count."""
    model = build("test_vit", settings, img_size=32)
    settings.analyze(model, pictures(model, 8), metrics=ALL, resamples=100)


def measure(told: dict[str, Any]) -> Peak:
    """Build the job, then run it under the limit."""
    import torch

    settings = Settings(**told["settings"])
    module = import_module(f"bench_{told['section']}")
    warm_up(settings)
    forget_peak()
    start = resident()
    kept, call = module.alone(told["job"], settings)
    if settings.cuda:
        torch.cuda.reset_peak_memory_stats()
        start, loaded = 0, torch.cuda.memory_allocated()
    else:
        forget_peak()
        loaded = resident()
        confine(int(settings.memory * 2**30))
    try:
        call()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Peak(failed=OUT_OF_MEMORY)
    peak = torch.cuda.max_memory_allocated() if settings.cuda else resident("VmHWM")
    del kept
    return Peak(peak - start, peak - loaded)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(asdict(measure(json.loads(sys.argv[1])))))
