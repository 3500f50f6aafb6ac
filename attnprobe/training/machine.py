"""This process's machine, through accelerate: devices, processes, precision, kernels."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attnprobe.errors import AttnprobeError
from attnprobe.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerator_of(config: TrainingConfig, out: Path) -> "Accelerator":
    """Return accelerate's view of this process, its devices and its precision.

    Raises:
        AttnprobeError: The device or precision is not to be had, or somebody else in this
            process has told accelerate another one.
    """
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    section = config.loop
    if section.device == "cuda" and not torch.cuda.is_available():
        raise AttnprobeError("there is no CUDA device", "leave --device at auto, or use cpu")
    elsewhere = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = section.device == "cpu" or not elsewhere
    precision = _precision(section.precision, on_cpu=on_cpu)
    if on_cpu and precision == "fp16":
        raise AttnprobeError("fp16 needs a CUDA device", "use --precision bf16 or fp32")
    trackers: list[Any] = list(trackers_of(config))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Accelerator(
                cpu=on_cpu,
                mixed_precision="no" if precision == "fp32" else precision,
                gradient_accumulation_steps=section.accumulate,
                log_with=trackers or None,
                project_config=ProjectConfiguration(str(out), logging_dir=str(out / "tensorboard")),
            )
    except ValueError as error:
        if "already been initialized" not in str(error):
            raise
        raise AttnprobeError(
            f"this process already uses accelerate with other settings than {precision} here",
            "train in a process of its own",
        ) from error
    _check_processes(found)
    # of 1 x 1 convolutions, whose strides have two spellings; nothing is wrong with them
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return found


def _check_processes(accelerator: "Accelerator") -> None:
    """Refuse processes that do not know of one another: they would write into one folder.

    Raises:
        AttnprobeError: A launcher started several, and accelerate sees another number.
    """
    launched = os.environ.get("WORLD_SIZE", "1")
    if launched.isdigit() and int(launched) > 1 and accelerator.num_processes != int(launched):
        raise AttnprobeError(
            f"{launched} processes were started, but accelerate joins "
            f"{accelerator.num_processes} on {accelerator.device.type}",
            "give --device cpu, or as many processes as there are CUDA devices",
        )


def release(accelerator: "Accelerator") -> None:
    """Let the next run of this process choose its precision and kernels anew."""
    from accelerate.state import AcceleratorState

    torch.use_deterministic_algorithms(False)
    if accelerator.num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)


def gather(items: list[Any]) -> list[Any]:
    """Return the items of all processes, in their order."""
    from accelerate.utils import gather_object

    return gather_object(items)


def trackers_of(config: TrainingConfig) -> list[str]:
    """Return the trackers to feed beside metrics.jsonl; "none" is none.

    Raises:
        AttnprobeError: accelerate knows none of that name, or its package is missing.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import is_tensorboard_available

    wanted = list(dict.fromkeys(name for name in config.watch.trackers if name != "none"))
    known = {getattr(kind, "value", str(kind)) for kind in LOGGER_TYPE_TO_CLASS}
    for name in wanted:
        if name not in known:
            raise AttnprobeError(
                f"unknown tracker {name!r}", f"choose from: none, {', '.join(sorted(known))}"
            )
    if wanted == ["tensorboard"] and not is_tensorboard_available():
        return []  # the default; metrics.jsonl holds the same numbers
    held = {str(name) for name in get_available_trackers()}
    if absent := [name for name in wanted if name not in held]:
        raise AttnprobeError(
            f"the tracker {absent[0]} is not installed", f"pip install {absent[0]}, or leave it out"
        )
    return wanted


def choose_kernels(config: TrainingConfig, accelerator: "Accelerator") -> None:
    """Choose kernels: on the CPU always those that repeat bit for bit."""
    on_cpu = accelerator.device.type == "cpu"
    if on_cpu or config.loop.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=on_cpu)
    elif accelerator.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def _precision(asked: str, *, on_cpu: bool) -> str:
    """Return the precision of the forward pass; auto takes bf16 where the machine has it."""
    if asked != "auto":
        return asked
    if not on_cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    fast = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    known = (getattr(torch.cpu, name, None) for name in fast)
    return "bf16" if any(probe is not None and probe() for probe in known) else "fp32"
