"""A census of timm: one small model of every module file and of every kind of attention in it.

`python tests/census.py [NAME ...]` says of each what is captured of it at its own size and at one
that nothing divides, or why it is refused; any other exception is a bug. Without names it chooses
the models itself, which builds all of timm's without memory for their weights: minutes.
"""

import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models._registry import _model_entrypoints
from torch import nn
from torch.overrides import TorchFunctionMode

from attnprobe.attention import left_out
from attnprobe.attention.calls import ATTENTION, CALLS, SOFTMAX
from attnprobe.attention.families import variant_of
from attnprobe.attention.layers import is_pooling
from attnprobe.attention.reader import kind_of
from attnprobe.attention.reading import own_in_order
from attnprobe.capture import capture
from attnprobe.conformance import Softmaxes, unfused
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import reference

Size = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """What became of one model at one size.

    Attributes:
        state: captured, refused, error, or other where the model itself does not take the size.
        detail: Layers and their grids, or the message.
        worst: Largest difference from the model's own softmaxes.
        missed: Calls of attention that belong to no layer, no pooling head and nothing left out.
    """

    state: str
    detail: str = ""
    worst: float = 0.0
    missed: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the model was captured as it is, or refused by name."""
        return self.state in ("refused", "other") or (
            self.state == "captured" and self.worst <= 1e-5 and not self.missed
        )


def chosen() -> dict[str, str]:
    """Return the smallest model of each module file and set of attention classes, by name."""
    best: dict[Any, tuple[int, str]] = {}
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
        kinds = frozenset(kind_of(x) for x in model.modules() if CALLS.matches(x))
        size = sum(x.numel() for x in model.parameters())
        key = (_model_entrypoints[name].__module__, kinds)
        best[key] = min(best.get(key, (size, name)), (size, name))
    return {name: file.rpartition(".")[2] for (file, _), (_, name) in sorted(best.items(), key=str)}


def examine(name: str, size: Size | None = None) -> Found:
    """Return what becomes of a model at its own size, or at another.

    Args:
        name: A name of timm's.
        size: Height and width; None for the model's own.
    """
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, pretrained=False, **_sized(name, size)).eval()
        images = torch.randn(2, 3, *(size or model.pretrained_cfg["input_size"][1:]))
        with torch.inference_mode():
            bare = model(images)
    except Exception as error:  # noqa: BLE001 - a model may refuse a size in any way
        return Found("other", _short(error))
    try:
        return _observed(model, images, bare)
    except AttnprobeError as error:
        return Found("refused", error.cause)
    except Exception as error:  # noqa: BLE001 - any other is a bug, which the table names
        return Found("error", _short(error))


def _sized(name: str, size: Size | None) -> dict[str, Any]:
    """Return the arguments that build a model for a size, if it has any."""
    if size is None:
        return {}
    for given in ({"img_size": size, "strict_img_size": False}, {"img_size": size}):
        try:
            with torch.device("meta"):
                timm.create_model(name, pretrained=False, **given)
        except Exception:  # noqa: BLE001 - a model may refuse an argument in any way
            continue
        return given
    return {}


def _observed(model: nn.Module, images: torch.Tensor, bare: Any) -> Found:
    with torch.inference_mode(), capture(model, on_features=lambda _: None) as taps:
        watched = model(images)
    if not _same(bare, watched):
        return Found("error", "watching changes the output")
    own = Softmaxes(model, [layer.name for layer in taps.layers])
    every = _Every(model, {layer.name for layer in taps.layers})
    with unfused(model), torch.inference_mode(), own.watching(), every.watching():
        model(images)
    worst, alone = 0.0, []
    for inputs in taps.attention:
        ours = reference.logits(inputs, slice(None)).softmax(-1)
        module = model.get_submodule(inputs.layer.name)
        variant = variant_of(module)
        joined = variant is not None and variant.join is not None  # no one softmax is all of it
        gaps = [
            float((ours - own_in_order(model, module, x, ours.shape).double()).abs().max())
            for x in (() if joined else own.found[inputs.layer.name])
            if x.numel() == ours.numel() and x.shape[-2:] == ours.shape[-2:]
        ]
        if gaps:
            worst = max(worst, min(gaps))
        else:
            alone.append(inputs.layer.name)
    grids = dict.fromkeys(_told(layer.grid) for layer in taps.layers)
    detail = f"{len(taps.layers)} layers: {', '.join(grids)}"
    detail += f"; not compared: {len(alone)}" if alone else ""
    return Found("captured", detail, worst, tuple(dict.fromkeys(every.missed)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    parts = zip(one, other, strict=True) if isinstance(one, list | tuple) else ()
    return all(_same(*pair) for pair in parts)


def _told(grid: Any) -> str:
    if grid is None:
        return "no place"
    text = f"{grid.rows}x{grid.cols}/{grid.patch[0]:g}"
    text += f"+{grid.prefix}" if grid.prefix else ""
    text += f" windows {grid.window}" if grid.window else ""
    text += f" apart {grid.dilation}" if grid.dilation != (1, 1) else ""
    text += f" shift {grid.shift}" if any(grid.shift) else ""
    return text + (f" <- {_told(grid.keys)}" if grid.keys else "")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"


class _Every(TorchFunctionMode):
    """Lists the calls of attention that nobody has accounted for."""

    def __init__(self, model: nn.Module, layers: set[str]) -> None:
        super().__init__()
        self.model, self.missed, self.inside = model, [], []
        self.accounted = layers | set(left_out(model))
        self.accounted |= {name for name, part in model.named_modules() if is_pooling(part)}

    def watching(self) -> "_Every":
        """Note in which modules each call lies."""
        for name, part in self.model.named_modules():
            part.register_forward_pre_hook(lambda *_, name=name: self.inside.append(name))
            part.register_forward_hook(lambda *_: self.inside.pop() and None)
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        known = func in SOFTMAX or func in ATTENTION
        if known and not self.accounted & set(self.inside):
            part = self.model.get_submodule(self.inside[-1])
            self.missed.append(f"{type(part).__name__} {tuple(output.shape)}")
        return output


def table(names: dict[str, str]) -> Iterator[str]:
    """Yield one row a model."""
    for name, file in names.items():
        config = timm.get_pretrained_cfg(name)
        height, width = (config.input_size if config else (3, 224, 224))[1:]
        for size in (None, (height - 37, width + 13), (32 * math.ceil(height / 48), width)):
            found = examine(name, size)
            sign = " " if found.right else "!"
            told = f"{found.worst:.0e} {found.detail} {' '.join(found.missed)}"
            yield f"{sign} {file} {name} {size or 'own'} {found.state} {told}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = dict.fromkeys(sys.argv[1:], "") or chosen()
    for line in table(asked):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
