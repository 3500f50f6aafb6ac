"""Does attnprobe measure this model right? One batch through it, and everything checked.

For a format or reader of one's own above all: that no weight was left at random, that every
attention module reported, that what was captured are the model's own probabilities, that
watching changed nothing, and that the fast kernel agrees with float64 on this very model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnprobe import kernels
from attnprobe.attention.calls import SOFTMAX
from attnprobe.attention.families import variant_of
from attnprobe.attention.reading import own_in_order
from attnprobe.attention.settling import settled
from attnprobe.capture import capture
from attnprobe.checkpoints import LoadedModel
from attnprobe.doctor import ALL, TOLERANCE, Check, deviation
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import reference
from attnprobe.settings import pick_device
from attnprobe.tensors import AttentionInputs, Features

IMAGES = 5  # as hardly a model has heads, so that the axes of images and heads cannot be confused
PROBABILITIES = 1e-5  # largest difference from the model's own


def checks(loaded: LoadedModel, device: str = "auto") -> list[Check]:
    """Return every check of a loaded model; the first one that fails ends them.

    Args:
        loaded: The model.
        device: Where it runs.
    """
    module = loaded.module.to(pick_device(device)).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, *loaded.spec.input_size, generator=generator)
    images = images.to(next(module.parameters()).device)
    found = [_weights(loaded)]
    try:
        found += _observed(module, images, loaded)
    except AttnprobeError as error:
        found.append(Check("every attention module reports", passed=False, detail=error.cause))
    except Exception as error:  # noqa: BLE001 - the user's model and reader fail in any way
        detail = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        found.append(Check("a pass through the model", passed=False, detail=detail))
    return found


def _weights(loaded: LoadedModel) -> Check:
    if loaded.spec.format == "timm-random":
        return Check("weights", passed=True, detail="untrained, as asked for")
    counts = loaded.ledger.counts()
    detail = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    name = "every weight came from the file"
    return Check(name, not loaded.ledger.missing, detail or "a module of your own")


def _observed(module: nn.Module, images: Tensor, loaded: LoadedModel) -> Iterator[Check]:
    with torch.inference_mode(), settled(module):
        bare = _tensors(module(images))
    taken: list[AttentionInputs] = []
    features: list[Features] = []
    with (
        torch.inference_mode(),
        capture(
            module, taken.append, features.append, readers=loaded.readers, grid=loaded.grid
        ) as taps,
    ):
        watched = _tensors(module(images))
    told = f"{len(taps.layers)} layers, {sum(layer.heads for layer in taps.layers)} heads"
    yield Check("every attention module reports", bool(taps.layers), told)
    same = len(bare) == len(watched) and all(map(_identical, bare, watched))
    told = "equal to the bit" if same else "the output differs"
    yield Check("watching leaves the output as it is", same, told)
    finite = all(bool(x.isfinite().all()) for x in (*watched, *(item.x for item in features)))
    yield Check("outputs and features are finite", finite, f"{len(features)} blocks")
    yield _geometry(taken)
    yield from _probabilities(module, images, taken)
    yield _kernel(taken)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [x for x in parts if isinstance(x, Tensor)] if isinstance(parts, list | tuple) else []


def _identical(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool((one.isnan() & other.isnan() | (one == other)).all())


def _geometry(taken: Sequence[AttentionInputs]) -> Check:
    name = "tokens lie on the image"
    placed = [inputs for inputs in taken if inputs.layer.grid is not None]
    for inputs in placed:
        grid = inputs.layer.grid
        if grid is not None and grid.tokens != inputs.k.shape[2]:
            detail = f"{inputs.layer.name} has {inputs.k.shape[2]} keys, its grid {grid.tokens}"
            return Check(name, passed=False, detail=detail)
    without = len(taken) - len(placed)
    detail = f"{len(placed)} layers" + (f", {without} without geometry" if without else "")
    return Check(name, passed=True, detail=detail)


def _probabilities(
    module: nn.Module, images: Tensor, taken: Sequence[AttentionInputs]
) -> Iterator[Check]:
    name = "captured probabilities are the model's own"
    seen = Softmaxes(module, [inputs.layer.name for inputs in taken])
    with unfused(module), torch.inference_mode(), seen.watching():
        module(images)
    gaps: list[Tensor] = []
    for inputs in taken:
        own = _fitting(module, seen.found[inputs.layer.name], inputs)
        if own is not None:
            ours = reference.logits(inputs, slice(None)).softmax(-1)
            gaps.append((ours - own.double()).abs().max())
    worst = float(torch.stack(gaps).max()) if gaps else 0.0  # NaN if one of them is
    silent = len(taken) - len(gaps)
    detail = f"{len(gaps)} layers, off by {worst:.1e}"
    detail += f"; {silent} form no softmax of their own to compare with" if silent else ""
    yield Check(name, worst <= PROBABILITIES, detail)


def _fitting(module: nn.Module, found: list[Tensor], inputs: AttentionInputs) -> Tensor | None:
    """Return the softmax of the layer's own shape, if it formed one, arranged as it was read."""
    shape = (*inputs.q.shape[:3], inputs.k.shape[2])
    by_head = (inputs.images, shape[1], inputs.windows, *shape[2:])
    part = module.get_submodule(inputs.layer.name)
    known = variant_of(part)
    shapes = {shape, by_head} if known is not None and known.order else {shape}
    fitting = (own_in_order(module, part, x, shape) for x in found if tuple(x.shape) in shapes)
    return next(fitting, None)


def _kernel(taken: Sequence[AttentionInputs]) -> Check:
    gaps = [0.0]
    for inputs in taken:
        found = kernels.attention_stats(inputs, ALL)
        gaps.append(deviation(found, reference.attention_stats(inputs, ALL)))
    worst = float(torch.tensor(gaps, dtype=torch.float64).max())  # NaN if one of them is
    detail = f"largest relative deviation from float64 {worst:.1e}"
    return Check("the kernel measures it as float64 does", worst <= TOLERANCE, detail)


@contextmanager
def unfused(module: nn.Module) -> Iterator[None]:
    """Let attention form its probabilities where it has a switch for that."""
    switched = [part for part in module.modules() if getattr(part, "fused_attn", False) is True]
    try:
        for part in switched:
            vars(part)["fused_attn"] = False
        yield
    finally:
        for part in switched:
            vars(part)["fused_attn"] = True


@dataclass
class Softmaxes:
    """Keeps what softmax gives inside certain modules.

    Attributes:
        module: The model.
        names: Names of the modules.
        found: Every softmax by module name, in order.
    """

    module: nn.Module
    names: list[str]
    found: dict[str, list[Tensor]] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep them while the context is open."""
        self.found = {name: [] for name in self.names}
        inside: list[str] = []
        handles = []
        for name in self.names:
            part = self.module.get_submodule(name)
            handles.append(part.register_forward_pre_hook(partial(_entered, inside, name)))
            handles.append(part.register_forward_hook(partial(_left, inside)))
        try:
            with _Watch(inside, self.found):
                yield
        finally:
            for handle in handles:
                handle.remove()


def _entered(inside: list[str], name: str, *_: object) -> None:
    inside.append(name)


def _left(inside: list[str], *_: object) -> None:
    inside.pop()


class _Watch(TorchFunctionMode):
    def __init__(self, inside: list[str], found: dict[str, list[Tensor]]) -> None:
        super().__init__()
        self.inside, self.found = inside, found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in SOFTMAX and self.inside:
            self.found[self.inside[-1]].append(output)
        return output
