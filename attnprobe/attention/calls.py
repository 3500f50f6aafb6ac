"""Reader for every other module that calls SDPA, or a softmax over its keys, in its own code.

An attention module needs no code of its own here. Where it calls SDPA the queries and keys are
read there; where it only forms the probabilities its logits are kept instead, as the bias of
empty queries and keys, so that kernels and metrics need not know the difference. Which modules
those are is read from the code of their forward passes (see `code`), not from their names.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprobe.attention.code import reaches
from attnprobe.attention.multihead import MULTIHEAD, read_multihead
from attnprobe.attention.reader import Call, RawAttention, Reader
from attnprobe.attention.sdpa import SDPA
from attnprobe.attention.weighted import from_logits
from attnprobe.errors import CaptureError

SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
ATTENTION = (F.scaled_dot_product_attention, MULTIHEAD)
# attention that torch does not show: a module that calls one is known, and refused as silent
_UNSEEN = (
    "flash_attn_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_qkvpacked_func",
    "flex_attention",
    "memory_efficient_attention",
    "na2d",
)
_LIBRARIES = {"timm", "torch", "torchvision", "transformers", "open_clip"}
_HEADS = ("num_heads", "heads", "num_attention_heads", "n_heads", "n_head")


def _matches(module: nn.Module) -> bool:
    inner = (part for part in module.modules() if part is not module)
    return _attends(module) and not any(map(_attends, inner))


def _attends(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return True
    if type(module).__module__.startswith("torch."):
        return False
    softmax = any(isinstance(child, nn.Softmax) for child in module.children())
    return softmax or reaches(type(module), (*SOFTMAX, *ATTENTION, *_UNSEEN))


def _watch(module: nn.Module, func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    del module
    return func in ATTENTION or (func in SOFTMAX and not over_classes(args, kwargs))


def over_classes(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a softmax makes one distribution an image, as over classes; never one a token."""
    logits = args[0] if args else kwargs["input"]
    return logits.ndim == 2 and logits.shape[0] != logits.shape[1]


def _read(module: nn.Module, call: Call, inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    if call.func is MULTIHEAD:
        return read_multihead(module, call)
    if call.func not in SOFTMAX:
        return SDPA.read(module, call, inputs)
    if call.kwargs.get("out") is not None:
        raise CaptureError(
            f"{type(module).__name__} writes its softmax over other numbers, perhaps its logits",
            "leave out= away from the softmax",
        )
    logits = call.args[0] if call.args else call.kwargs["input"]
    axis = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim")
    if logits.ndim not in (3, 4) or axis not in (-1, logits.ndim - 1):
        raise CaptureError(
            f"{type(module).__name__} takes a softmax over axis {axis} of {tuple(logits.shape)}, "
            "which is not attention [images x windows, heads, queries, keys]",
            "this attention variant has no reader yet; add one in attnprobe/attention",
        )
    if logits.ndim == 3:  # [images x windows x heads, queries, keys]
        logits = logits.unflatten(0, (-1, heads_of(module)))
    return from_logits(logits)


def heads_of(module: nn.Module) -> int:
    """Return the heads that a module folds into its batch axis; 1 where it names none."""
    named = (getattr(module, name, None) for name in _HEADS)
    return next((heads for heads in named if isinstance(heads, int)), 1)


def axes_look_alike(module: nn.Module, q: Tensor, images: int) -> bool:
    """Whether a module of the user's own may as well have put the heads before the images."""
    library = type(module).__module__.partition(".")[0]
    return library not in _LIBRARIES and q.shape[0] == q.shape[1] == images > 1


def seen_outside(func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a call outside every attention module that was found is attention."""
    if func in ATTENTION:
        return True
    if func not in SOFTMAX:
        return False
    logits = args[0] if args else kwargs["input"]
    return logits.ndim > 2 and logits.shape[-1] == logits.shape[-2] > 1


CALLS = Reader("calls", _matches, _watch, _read)
