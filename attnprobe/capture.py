"""Hooks in, signals out, hooks gone: attention inputs and block features of a forward pass.

Fused attention stays on and the model's output does not change by a bit: attention calls are
observed as they pass, by a torch-function mode that is active for the duration of `capture`.
After every pass each expected layer must have reported exactly once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from attnprobe.attention import READERS, Reader, discover
from attnprobe.attention.dropping import Kept
from attnprobe.attention.given import Given
from attnprobe.attention.layers import check_uncompiled
from attnprobe.attention.settling import settled
from attnprobe.attention.watching import OnAttention, OnFeatures, Watcher
from attnprobe.tensors import AttentionInputs, Features
from attnprobe.types import LayerInfo


@dataclass
class Taps:
    """What a capture has seen.

    Attributes:
        attention: One record a layer in execution order, unless a callback consumes them.
        features: One record a block, unless a callback consumes them.
        layers: The layers of the last pass, in execution order.
    """

    attention: list[AttentionInputs] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)
    layers: list[LayerInfo] = field(default_factory=list)


@contextmanager
def capture(
    model: nn.Module,
    on_attention: OnAttention | None = None,
    on_features: OnFeatures | None = None,
    *,
    readers: Sequence[Reader] = (),
    grid: Given | None = None,
    kept: Callable[[], Kept | None] | None = None,
) -> Iterator[Taps]:
    """Observe every attention layer of `model`; yields taps that are filled as passes are made.

    Args:
        model: A model whose attention some reader knows; it is left as it was found.
        on_attention: Called with each layer's inputs at once, so that nothing is kept; without
            it they are collected in `Taps.attention`.
        on_features: Likewise for block outputs.
        readers: Readers of the user's own, asked before the known ones.
        grid: Where the tokens lie, for a model of which that is not known: (rows, columns) or
            (rows, columns, prefix tokens) over the whole image, a `TokenGrid`, or a function
            that returns one of these for a layer's name, or None for no place on the image.
        kept: Returns which patches the images of the pass under way kept, where the model drops
            the others before its first layer.

    Raises:
        CaptureError: A layer was silent, reported twice, or cannot be read.
        GeometryError: Where its tokens lie is not known, and `grid` does not say it either.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("test_vit", pretrained=False).eval()
        >>> with torch.no_grad(), capture(model) as taps:
        ...     _ = model(torch.zeros(1, 3, 160, 160))
        >>> taps.attention[0].q.shape
        torch.Size([1, 2, 101, 32])
    """
    taps, sites = Taps(), discover(model, (*readers, *READERS))
    check_uncompiled(model, sites)
    watcher = Watcher(
        model,
        sites,
        taps.layers,
        on_attention=on_attention or taps.attention.append,
        on_features=on_features or taps.features.append,
        grid=grid,
        kept=kept,
    )
    with ExitStack() as stack:
        stack.enter_context(settled(model))
        for handle in watcher.install():
            stack.callback(handle.remove)
        stack.enter_context(_Observe(watcher))
        yield taps
        watcher.verify()


class _Observe(TorchFunctionMode):
    """Shows every torch call to the watcher after it has run, unchanged."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher

    def __torch_function__(self, func: Any, _: Any, args: tuple = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.watcher.saw(func, args, kwargs or {}, output)
        return output
