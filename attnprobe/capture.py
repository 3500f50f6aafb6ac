"""Hooks in, signals out, hooks gone: attention inputs and block features of a forward pass.

Fused attention stays on and the model's output does not change by a bit: attention calls are
observed as they pass, by a torch-function mode that is active for the duration of `capture`.
After every pass each expected layer must have reported exactly once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnprobe.attention import READERS, RawAttention, Reader, Site, discover
from attnprobe.attention.geometry import grid_of, stage_of, tokens_of
from attnprobe.attention.layers import is_pooling
from attnprobe.attention.reader import Call
from attnprobe.attention.reading import read
from attnprobe.errors import CaptureError
from attnprobe.tensors import AttentionInputs, Features
from attnprobe.types import LayerInfo

OnAttention = Callable[[AttentionInputs], None]
OnFeatures = Callable[[Features], None]


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
) -> Iterator[Taps]:
    """Observe every attention layer of `model`; yields taps that are filled as passes are made.

    Args:
        model: A model whose attention some reader knows; it is left as it was found.
        on_attention: Called with each layer's inputs at once, so that nothing is kept; without
            it they are collected in `Taps.attention`.
        on_features: Likewise for block outputs.
        readers: Readers of the user's own, asked before the known ones.

    Raises:
        CaptureError: A layer was silent, reported twice, or cannot be read.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("test_vit", pretrained=False).eval()
        >>> with torch.no_grad(), capture(model) as taps:
        ...     _ = model(torch.zeros(1, 3, 160, 160))
        >>> taps.attention[0].q.shape
        torch.Size([1, 2, 101, 32])
    """
    taps = Taps()
    watcher = _Watcher(
        model,
        discover(model, (*readers, *READERS)),
        taps,
        on_attention=on_attention or taps.attention.append,
        on_features=on_features or taps.features.append,
    )
    with ExitStack() as stack:
        for handle in watcher.install():
            stack.callback(handle.remove)
        stack.enter_context(_Observe(watcher))
        yield taps
        watcher.verify()


@contextmanager
def _aside(device: str) -> Iterator[None]:
    """Measure beside the pass: unobserved, without gradients, and never in autocast's precision."""
    with torch.no_grad(), torch._C.DisableTorchFunction(), torch.autocast(device, enabled=False):
        yield


class _Observe(TorchFunctionMode):
    """Shows every torch call to the watcher after it has run, unchanged."""

    def __init__(self, watcher: "_Watcher") -> None:
        super().__init__()
        self.watcher = watcher

    def __torch_function__(self, func: Any, _: Any, args: tuple = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.watcher.saw(func, args, kwargs or {}, output)
        return output


class _Watcher:
    """State of one capture: where in the model we are and who has reported."""

    def __init__(
        self,
        model: nn.Module,
        sites: list[Site],
        taps: Taps,
        *,
        on_attention: OnAttention,
        on_features: OnFeatures,
    ) -> None:
        self.model, self.sites, self.taps = model, sites, taps
        self.on_attention, self.on_features = on_attention, on_features
        self.inside: Site | None = None
        self.pooling, self.open_blocks = False, 0
        self.calls: list[Call] = []
        self.reported: dict[str, LayerInfo] = {}
        self.image: tuple[int, int, int] | None = None

    def install(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Register every hook, one by one, so that the caller can undo a partial set."""
        entry = getattr(self.model, "patch_embed", self.model)
        if isinstance(entry, nn.ModuleList):  # which is never called
            entry = self.model
        yield entry.register_forward_pre_hook(self._begin)
        yield self.model.register_forward_hook(self._ended, always_call=True)
        for site in self.sites:
            yield site.module.register_forward_pre_hook(self._enter(site), with_kwargs=True)
            yield site.module.register_forward_hook(self._leave(site), with_kwargs=True)
            yield site.block.register_forward_pre_hook(self._block_begun)
            yield site.block.register_forward_hook(self._block_done(site))
        for module in filter(is_pooling, self.model.modules()):
            yield module.register_forward_pre_hook(lambda *_: setattr(self, "pooling", True))
            yield module.register_forward_hook(lambda *_: setattr(self, "pooling", False))

    def saw(self, func: Callable, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """Keep the call if the attention module we are in wants it."""
        if self.inside is not None:
            if self.inside.reader.watch(self.inside.module, func, args, kwargs):
                self.calls.append(Call(args, kwargs, output, func))
        elif func is nn.functional.scaled_dot_product_attention and not self.pooling:
            raise CaptureError(
                "attention was computed outside every attention module that was found",
                "name the module's heads `num_heads` and its projection `qkv`, or add a reader",
            )

    def verify(self) -> None:
        """Check that every expected layer reported in the pass that just ended.

        A pass that an exception ended inside a block is not judged: the exception was.
        """
        if self.open_blocks:
            return
        silent = [site.name for site in self.sites if site.name not in self.reported]
        if self.image is not None and silent:
            raise CaptureError(
                f"{len(silent)} of {len(self.sites)} attention layers did not report: "
                f"{', '.join(silent[:5])}",
                "switch fused attention on (timm: set_fused_attn(True), TIMM_FUSED_ATTN=1) and "
                "run the model unscripted and uncompiled",
            )

    def _begin(self, module: nn.Module, args: tuple) -> None:
        """Start a pass: check the last one, note the images that come in."""
        self.verify()
        self.inside, self.pooling, self.open_blocks = None, False, 0
        images = args[0]
        if not (isinstance(images, Tensor) and images.ndim == 4):
            raise CaptureError(
                f"{type(module).__name__} was not given images [n, 3, h, w]",
                "call the model with one batch of images",
            )
        self.image = (images.shape[0], images.shape[2], images.shape[3])
        self.reported = {}
        self.taps.layers.clear()

    def _ended(self, *call: object) -> None:
        """Forget a pass that an exception ended, so that the next one can begin."""
        if call[-1] is None:
            self.image, self.open_blocks = None, 0

    def _enter(self, site: Site) -> Callable:
        def hook(*_: object) -> None:
            self.inside, self.calls = site, []

        return hook

    def _leave(self, site: Site) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any], _output: Any) -> None:
            calls, self.inside, self.calls = self.calls, None, []
            if site.name in self.reported:
                raise CaptureError(
                    f"{site.name} attended more than once in one pass",
                    "capture one forward pass at a time, without weight sharing between layers",
                )
            if calls:  # a silent layer is named when the pass ends
                self._report(site, read(site, calls, (args, kwargs)))

        return hook

    def _report(self, site: Site, raw: RawAttention) -> None:
        if self.image is None:
            raise CaptureError(
                f"{site.name} ran before any images came in", "call the whole model, not a block"
            )
        images = self.image[0]
        if raw.k.ndim != 4 or raw.q.shape[0] % images:
            raise CaptureError(
                f"{site.name} attends over keys of shape {tuple(raw.k.shape)}, not "
                "[images x windows, heads, keys, dim]",
                "this attention variant has no reader yet; add one in attnprobe/attention",
            )
        _, heads, _, dim = raw.q.shape
        layer = LayerInfo(
            index=len(self.reported),
            name=site.name,
            heads=heads,
            dim=dim,
            grid=grid_of(self.model, site, raw, self.image),
            stage=stage_of(site.name),
        )
        self.reported[site.name] = layer
        self.taps.layers.append(layer)
        with _aside(raw.q.device.type):
            self.on_attention(AttentionInputs(layer, images, *raw))

    def _block_begun(self, *_: object) -> None:
        self.open_blocks += 1

    def _block_done(self, site: Site) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: Any) -> None:
            self.open_blocks -= 1
            x = output[0] if isinstance(output, tuple) else output
            layer = self.reported.get(site.name)
            if layer is None or self.image is None:
                return
            with _aside(x.device.type):
                self.on_features(Features(layer, self.image[0], tokens_of(x.detach(), self.image)))

        return hook
