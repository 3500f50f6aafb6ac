"""Where in a model a pass is, and which attention layers have reported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.attention.calls import CALLS, SOFTMAX, axes_look_alike, over_classes, seen_outside
from attnprobe.attention.dropping import Kept, restored
from attnprobe.attention.geometry import grid_of, stage_of, tokens_of
from attnprobe.attention.given import Given
from attnprobe.attention.layers import Site, is_pooling, left_out
from attnprobe.attention.multihead import images_first
from attnprobe.attention.placing import stating
from attnprobe.attention.reader import Call, RawAttention
from attnprobe.attention.reading import feature_of, in_order, read
from attnprobe.errors import CaptureError
from attnprobe.tensors import AttentionInputs, Features
from attnprobe.types import LayerInfo

OnAttention = Callable[[AttentionInputs], None]
OnFeatures = Callable[[Features], None]


@contextmanager
def _aside(device: str) -> Iterator[None]:
    """Measure beside the pass: unobserved, without gradients, and never in autocast's precision."""
    with torch.no_grad(), torch._C.DisableTorchFunction(), torch.autocast(device, enabled=False):
        yield


class Watcher:
    """State of one capture: where in the model we are and who has reported."""

    def __init__(
        self,
        model: nn.Module,
        sites: list[Site],
        layers: list[LayerInfo],
        *,
        on_attention: OnAttention,
        on_features: OnFeatures,
        grid: Given | None,
        kept: Callable[[], Kept | None] | None = None,
    ) -> None:
        self.model, self.sites, self.layers, self.grid = model, sites, layers, grid
        self.kept = kept or (lambda: None)
        self.on_attention, self.on_features = on_attention, on_features
        self.inside: Site | None = None
        self.beside, self.open_blocks, self.running = 0, 0, False
        self.calls: list[Call] = []
        self.excused: set[str] = set()
        self.told: set[str] = set()
        self.reported: dict[str, LayerInfo] = {}
        self.image: tuple[int, int, int] | None = None

    def install(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Register every hook, one by one, so that the caller can undo a partial set."""
        embed = getattr(self.model, "patch_embed", None)  # of models called by other methods
        entry = embed if isinstance(embed, nn.Module) else self.model
        yield self.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        yield entry.register_forward_pre_hook(self._begin, with_kwargs=True)
        yield self.model.register_forward_hook(self._ended, always_call=True)
        for site in self.sites:
            yield site.module.register_forward_pre_hook(self._enter(site), with_kwargs=True)
            yield site.module.register_forward_hook(self._leave(site), with_kwargs=True)
            yield site.block.register_forward_pre_hook(self._block_begun)
            yield site.block.register_forward_hook(self._block_done(site))
        without = left_out(self.model)
        for name, module in self.model.named_modules():
            if name in without or is_pooling(module):
                yield module.register_forward_pre_hook(self._pass_by(1))
                yield module.register_forward_hook(self._pass_by(-1))

    def saw(self, func: Callable, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """Keep the call if the attention module we are in wants it."""
        if self.inside is not None:
            if self.inside.reader.watch(self.inside.module, func, args, kwargs):
                self.calls.append(Call(args, kwargs, output, func))
            elif func in SOFTMAX and over_classes(args, kwargs):
                self.excused.add(self.inside.name)
        elif not self.beside and seen_outside(func, args, kwargs):
            raise CaptureError(
                "attention was computed outside every attention module that was found",
                "call it in the forward pass of a module of its own, or add a reader",
            )

    def verify(self) -> None:
        """Check that every expected layer reported in the pass that just ended.

        A pass that an exception ended inside a block is not judged: the exception was.
        """
        if self.open_blocks:
            return
        accounted = {*self.reported, *self.excused}
        silent = [site.name for site in self.sites if site.name not in accounted]
        if self.image is not None and silent:
            raise CaptureError(
                f"{len(silent)} of {len(self.sites)} attention layers did not report: "
                f"{', '.join(silent[:5])}",
                "switch fused attention on (timm: set_fused_attn(True), TIMM_FUSED_ATTN=1; "
                'transformers: attn_implementation="sdpa") and run the model uncompiled; of a '
                "model of images and text give the vision part, such as model.visual",
            )

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Start a pass: check the last one, note the images that come in."""
        if self.running:
            return
        self.verify()
        self.inside, self.beside, self.open_blocks = None, 0, 0
        given = (x for x in (*args[:1], *kwargs.values()) if isinstance(x, Tensor))
        images = next((x for x in given if x.ndim == 4), None)
        if images is None:
            raise CaptureError(
                f"{type(module).__name__} was not given images [n, 3, h, w]",
                "call the model with one batch of images",
            )
        self.image = (images.shape[0], images.shape[2], images.shape[3])
        self.reported = {}
        self.excused.clear()
        self.layers.clear()
        self.running = module is self.model

    def _ended(self, *call: object) -> None:
        """Forget a pass that an exception ended, so that the next one can begin."""
        self.running = False
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
                f"{site.name} ran before any images came in",
                "call the model itself, not a block or a method; of a model of images and text "
                "watch the vision part, such as model.visual or model.vision_model",
            )
        images = self.image[0]
        if raw.k.ndim != 4 or raw.q.shape[0] % images:
            raise CaptureError(
                f"{site.name} attends over keys of shape {tuple(raw.k.shape)}, not "
                "[images x windows, heads, keys, dim]",
                "this attention variant has no reader yet; add one in attnprobe/attention",
            )
        self._check_axes(site, raw)
        kept = self.kept()
        raw = raw if kept is None else restored(raw, kept, site.name)
        raw = in_order(self.model, site, raw)
        _, heads, _, dim = raw.q.shape
        grid = grid_of(self.model, site, raw, self.image, self.grid)
        if kept is not None and grid is not None:
            grid = replace(grid, kept=kept.places.shape[1])
        layer = LayerInfo(
            index=len(self.reported),
            name=site.name,
            heads=heads,
            dim=dim,
            grid=grid,
            stage=stage_of(stating(self.model, site.name)[1]),
        )
        self.reported[site.name] = layer
        self.layers.append(layer)
        with _aside(raw.q.device.type):
            mask = None if kept is None else kept.mask
            self.on_attention(AttentionInputs(layer, images, *raw, kept=mask))

    def _check_axes(self, site: Site, raw: RawAttention) -> None:
        """Refuse axes that cannot be told, unless another batch has shown which is which."""
        images = self.image[0] if self.image else 0
        read_at_large = site.reader is CALLS and site.name not in self.told
        if read_at_large and axes_look_alike(site.module, raw.q, images):
            raise CaptureError(
                f"{images} images and {images} heads in {site.name}: which axis holds the images "
                "cannot be told",
                "take another batch size, at least for the first batch",
            )
        self.told.add(site.name)

    def _pass_by(self, step: int) -> Callable:
        """Return a hook for the begin or end of a module whose attention is no layer."""

        def hook(*_: object) -> None:
            self.beside += step

        return hook

    def _block_begun(self, *_: object) -> None:
        self.open_blocks += 1

    def _block_done(self, site: Site) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: Any) -> None:
            self.open_blocks -= 1
            layer = self.reported.get(site.name)
            if layer is None or self.image is None:
                return
            x = feature_of(site, output)
            with _aside(x.device.type):
                # blocks may add to their input in place, which is what the one before gave
                x = images_first(site.module, x.detach().clone(), self.image[0])
                self.on_features(Features(layer, self.image[0], tokens_of(x, self.image)))

        return hook
