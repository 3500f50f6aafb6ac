"""Whether Triton programs can run on these inputs and this machine, and how they start."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from subprocess import CalledProcessError
from typing import Any

import torch
from torch import Tensor

from attnprobe.errors import AttnprobeError
from attnprobe.tensors import AttentionInputs

MAX_DIM = 128
MAX_PREFIX = 64
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)  # the first tensor cores that multiply tf32 and bf16


def require(inputs: AttentionInputs | None = None) -> None:
    """Refuse what the kernel cannot do.

    Raises:
        AttnprobeError: With the reason that `unsupported` gives.
    """
    reason = unsupported(inputs)
    if reason:
        raise AttnprobeError(reason, "choose the blocked kernel, or auto")


def preferred(inputs: AttentionInputs) -> bool:
    """Whether this kernel is the fastest choice: on a graphics card that can run it."""
    return inputs.q.is_cuda and not interpreted() and not unsupported(inputs)


def unsupported(inputs: AttentionInputs | None = None) -> str:
    """Return why the kernel cannot run on these inputs, or "" if it can.

    Args:
        inputs: One layer of one batch, or None to ask about this machine alone.
    """
    if find_spec("triton") is None:
        return "the fused kernel needs the package triton, which is not installed"
    if inputs is None:
        return _device_limits(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return _device_limits(inputs.q.device) or _shape_limits(inputs)


@cache
def release() -> tuple[int, ...]:
    """Return the major and minor number of Triton."""
    import triton

    return tuple(int(part) for part in triton.__version__.split(".")[:2])


def interpreted() -> bool:
    """Whether Triton's interpreter runs the programs: in numpy, on any device, slowly."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _device_limits(device: torch.device) -> str:
    return "" if interpreted() else _card_limits(device)


@cache
def _card_limits(device: torch.device) -> str:
    if device.type != "cuda" or torch.version.hip:
        return f"the fused kernel needs an NVIDIA graphics card, and the device is {device.type}"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return f"the fused kernel needs compute capability 8.0, which {device} lacks"
    return _trial(device)


def _trial(device: torch.device) -> str:
    """Return why Triton cannot start a program: it needs a C compiler, headers and a driver."""
    from attnprobe.kernels import _programs

    try:
        with torch.cuda.device(device):
            launch(_programs.trial, 1, (torch.empty(1, device=device),))
    except AttnprobeError as error:
        return error.cause
    return ""


def _shape_limits(inputs: AttentionInputs) -> str:
    heads, kv_heads, dim = inputs.q.shape[1], inputs.k.shape[1], inputs.q.shape[-1]
    for size, limit, what in (
        (dim, MAX_DIM, "channels a head"),
        (inputs.grid.prefix, MAX_PREFIX, "prefix tokens"),
    ):
        if size > limit:
            return f"the fused kernel takes at most {limit} {what}, and the layer has {size}"
    if not inputs.grid.whole:
        return "the fused kernel takes layers of which no token is absent (padding, or dropped)"
    if not inputs.grid.plain:
        return "the fused kernel takes queries that are the keys, in solid windows"
    if inputs.scale == 0 and dim == 1:
        return "the fused kernel multiplies queries and keys, and the layer gives its logits"
    if heads % kv_heads:
        return f"{heads} query heads cannot share {kv_heads} key heads evenly"
    wrong = [str(x.dtype) for x in (inputs.q, inputs.k) if x.dtype not in DTYPES]
    return f"the fused kernel takes fp32, fp16 and bf16, not {wrong[0]}" if wrong else ""


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Make the tensor's device the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def launch(program: Any, blocks: int, arguments: tuple, **options: Any) -> None:
    """Run one program on a grid of `blocks`.

    Raises:
        AttnprobeError: Triton could not compile or start it.
    """
    import triton

    try:
        program[(blocks,)](*arguments, **options)
    except (triton.TritonError, RuntimeError, OSError, CalledProcessError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AttnprobeError(
            f"the fused kernel did not start ({reason})", "choose the blocked kernel, or auto"
        ) from error
