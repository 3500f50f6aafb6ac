"""Images of which a part is hidden, as masked pre-training shows them to the encoder.

Patches are dropped before the first block (MAE), or the mask token takes the place of their
embedding (SimMIM, BEiT). Every image has a mask of its own, drawn from the seed and the image's
id: the same in whatever batch or process it comes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attnprobe.attention.dropping import Kept
from attnprobe.checkpoints import LoadedModel
from attnprobe.checkpoints.masked import DROP, REPLACE, Masked
from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Framing, mae
from attnprobe.objectives import _backbone as backbone
from attnprobe.objectives import _masking as masks
from attnprobe.settings import AnalysisConfig


@dataclass
class Hiding:
    """Hides a part of every image that passes through a model.

    Attributes:
        module: The model.
        how: drop or replace.
        seed: Seed of the masks, beside the images' ids.
        layout: The cells that are hidden as a whole.
        words: What is done, as results state it.
        token: What replaces a hidden patch.
    """

    module: Any
    how: str
    seed: int
    layout: masks.Cells
    words: str
    token: Tensor | None = None
    _cover: masks.Cover = field(default_factory=masks.Cover)
    _selection: masks.Selection = field(init=False)

    def __post_init__(self) -> None:
        self._selection = masks.Selection(int(getattr(self.module, "num_prefix_tokens", 0)))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hide in every pass while the context is open."""
        part = self.module.patch_drop if self.how == DROP else self.module.patch_embed
        hook = self._selection if self.how == DROP else self._cover
        # first of all hooks, so that those who look at the embedding see what the model does
        handle = part.register_forward_hook(hook, prepend=True)
        try:
            yield
        finally:
            handle.remove()
            self._cover.hidden = self._cover.token = self._selection.kept = None

    def begin(self, ids: Sequence[str], device: torch.device) -> None:
        """Draw the masks of the images of the coming pass."""
        drawn = [self.mask(name) for name in ids]
        if self.how == DROP:
            kept = [(~mask).flatten().nonzero().flatten() for mask in drawn]
            self._selection.kept = torch.stack(kept).to(device)
            return
        self._cover.hidden = torch.stack(drawn).to(device)
        token: Any = self.token
        self._cover.token = token.to(device, next(self.module.parameters()).dtype)

    def mask(self, name: str) -> Tensor:
        """Return which patches of an image are hidden, bool [patch rows, patch cols]."""
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
        count = self.layout.rows * self.layout.cols
        return masks.spread(torch.randperm(count, generator=generator), self.layout)

    def kept(self) -> Kept | None:
        """Return what the images of the pass under way kept, or None for everything."""
        places = self._selection.kept
        if places is None:
            return None
        down, across = self.layout.repeat
        return Kept(places, self.layout.rows * down * self.layout.cols * across)


def hiding(loaded: LoadedModel, config: AnalysisConfig) -> Hiding | None:
    """Return what hides a part of every image, or None for whole images.

    Raises:
        AttnprobeError: The model cannot be shown a part of an image, or how is not known.
    """
    if not config.mask_ratio:
        return None
    _check(config)
    masked = _masked(loaded, config.mask_how)
    module = loaded.module
    _, convolution = backbone.embedding(module)
    patch = (int(convolution.kernel_size[0]), int(convolution.kernel_size[1]))
    spec = loaded.spec
    framing = Framing((spec.input_size[1], spec.input_size[2]), patch, spec.mean, spec.std)
    if masked.how == DROP:
        layout = _dropped(module, framing, config)
    else:
        layout = _covered(framing, config, masked)
    cell = f"squares of {config.mask_patch or masked.cell} px" if masked.cell else "patches"
    cell = f"squares of {config.mask_patch} px" if config.mask_patch else cell
    done = {DROP: "dropped before the first block", REPLACE: "replaced by the mask token"}
    words = f"{config.mask_ratio:.4g} of the {cell} {done[masked.how]}, seed {config.mask_seed}"
    return Hiding(module, masked.how, config.mask_seed, layout, words, masked.token)


def _check(config: AnalysisConfig) -> None:
    if not 0 < config.mask_ratio < 1:
        raise AttnprobeError(
            f"a mask ratio of {config.mask_ratio} hides no part of an image",
            "give --mask-ratio a value between 0 and 1, such as 0.6",
        )
    if config.mask_how not in ("auto", DROP, REPLACE):
        raise AttnprobeError(
            f"unknown way to mask {config.mask_how!r}", f"choose one of: auto, {DROP}, {REPLACE}"
        )
    if config.graphs:
        raise AttnprobeError(
            "CUDA graphs replay one mask for all images", "leave --graphs out of a masked run"
        )


def _masked(loaded: LoadedModel, how: str) -> Masked:
    """Return how to hide, from what was asked for or what the checkpoint says.

    Raises:
        AttnprobeError: Neither says it, or there is no mask token.
    """
    found = loaded.masked
    if how == DROP:
        return Masked(DROP)
    if found is not None and (found.how == REPLACE or how == "auto"):
        return found
    if how == REPLACE:
        raise AttnprobeError(
            f"{loaded.spec.name} comes without a mask token that could replace patches",
            "give the file of the pre-training, which holds it, or use --mask-how drop",
        )
    raise AttnprobeError(
        f"{loaded.spec.name} does not say how its images were masked in pre-training",
        "give the file of the pre-training, or say it: --mask-how drop (plain ViTs)",
    )


def _dropped(module: nn.Module, framing: Framing, config: AnalysisConfig) -> masks.Cells:
    """Return single patches as cells, of which as many are hidden as MAE hides.

    Raises:
        AttnprobeError: The model cannot drop patches, or a metric needs all of them.
    """
    drops = isinstance(module, VisionTransformer) and isinstance(module.patch_drop, nn.Identity)
    if not drops:
        raise AttnprobeError(
            f"{type(module).__name__} cannot drop patches: it is no plain ViT whose patch_drop is "
            "free",
            "use --mask-how replace, or measure whole images",
        )
    wants = {
        "flat tokens in CKA": config.options.cka_tokens == "flat" and "cka" in config.metrics,
        "attention averaged over images": config.options.average == "attention",
        "cells of --mask-patch": config.mask_patch > 0,
    }
    for what, wanted in wants.items():
        if wanted:
            raise AttnprobeError(
                f"{what} cannot be had where each image drops patches of its own",
                "leave it out, or use --mask-how replace",
            )
    (height, width), (down, across) = framing.size, framing.patch
    rows, cols = height // down, width // across
    return masks.Cells(
        rows, cols, rows * cols - mae.visible(rows * cols, config.mask_ratio), (1, 1)
    )


def _covered(framing: Framing, config: AnalysisConfig, masked: Masked) -> masks.Cells:
    """Return the cells that are replaced as a whole.

    Raises:
        AttnprobeError: They do not fill the input.
    """
    down, across = framing.patch
    cell = config.mask_patch or masked.cell
    if cell or down == across:
        return masks.cells(framing, cell or down, config.mask_ratio)
    raise AttnprobeError(
        f"patches of {down} x {across} are no squares to hide", "give --mask-patch in pixels"
    )
