"""The same statistics as they are had without attnprobe: stored maps and loops over heads.

Two ways. `extract` takes the maps by timm's AttentionExtract and works on tensors; `stored` is
what published analysis scripts do: hooks put every map into a numpy array, and numpy reduces
them. Both are written for speed within their way: the matrix of patch distances is made once,
logarithms are shared by all pairs of heads, and maps live for one batch only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import Settings, passes
from timm.utils import AttentionExtract
from torch import Tensor, nn

TINY = 1e-12  # of a probability, before its logarithm

Array = Any  # Tensor or ndarray


class Statistics(NamedTuple):
    """Values of every layer and image.

    Attributes:
        distance: px, [layers, images, heads].
        entropy: nats, [layers, images, heads].
        kl: nats, [layers, images, heads, heads], first against second.
    """

    distance: np.ndarray
    entropy: np.ndarray
    kl: np.ndarray


def gaps(model: Any) -> np.ndarray:
    """Return distances between the patch centres of a plain ViT, px, float32 [n, n]."""
    rows, cols = model.patch_embed.grid_size
    y, x = np.divmod(np.arange(rows * cols), cols)
    down, across = model.patch_embed.patch_size
    high, wide = down * (y[:, None] - y), across * (x[:, None] - x)
    return np.hypot(high, wide).astype(np.float32)


@contextmanager
def unfused(model: Any) -> Iterator[None]:
    """Switch fused attention off, so that maps exist."""
    found = [(part, part.fused_attn) for part in model.modules() if hasattr(part, "fused_attn")]
    try:
        for part, _ in found:
            part.fused_attn = False
        yield
    finally:
        for part, fused in found:
            part.fused_attn = fused


def extractor(model: Any) -> AttentionExtract:
    """Return timm's extractor by its default method, with fused attention off."""
    with unfused(model):
        return AttentionExtract(model)


def extract(
    model: Any,
    images: Tensor,
    batch: int,
    settings: Settings,
    *,
    taken: AttentionExtract | None = None,
    layers: int | None = None,
    renormalise: bool = False,
) -> Statistics:
    """Take the maps by AttentionExtract, reduce them on the device.

    Args:
        model: A plain ViT.
        images: Preprocessed, [n, 3, h, w].
        batch: Images in one forward pass.
        settings: Device and precision.
        taken: The extractor, where it was made before.
        layers: Reduce the first ones only; all maps are taken all the same.
        renormalise: Rescale the rows after the prefix keys are dropped, as attnprobe does.
    """
    taken = taken or extractor(model)
    gap = torch.from_numpy(gaps(model)).to(settings.device)
    batches = []
    for part in images.split(batch):
        with unfused(model), passes(settings):
            maps = list(taken(part.to(settings.device)).values())
            rows = (patch_rows(x.float(), model, renormalise) for x in maps[:layers])
            batches.append([reduced(x, gap, tensor_log) for x in rows])
    return joined(batches)


def stored(
    model: Any,
    images: Tensor,
    batch: int,
    settings: Settings,
    *,
    renormalise: bool = False,
) -> Statistics:
    """Keep every map as a numpy array, reduce them with numpy."""
    gap, batches = gaps(model), []
    kept: list[np.ndarray] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        del out
        kept.append(given[0].float().cpu().numpy())

    handles = [block.attn.attn_drop.register_forward_hook(keep) for block in model.blocks]
    try:
        for part in images.split(batch):
            kept.clear()
            with unfused(model), passes(settings):
                model(part.to(settings.device))
            rows = (patch_rows(x, model, renormalise) for x in kept)
            batches.append([reduced(x, gap, numpy_log) for x in rows])
    finally:
        for handle in handles:
            handle.remove()
    return joined(batches)


def patch_rows(maps: Array, model: Any, renormalise: bool) -> Array:
    """Return patch queries over patch keys, [images, heads, n, n]."""
    rows = maps[..., model.num_prefix_tokens :, model.num_prefix_tokens :]
    return rows / rows.sum(-1)[..., None] if renormalise else rows


def tensor_log(rows: Tensor) -> Tensor:
    """Return the logarithm of a tensor, bounded below."""
    return rows.clamp(min=TINY).log()


def numpy_log(rows: np.ndarray) -> np.ndarray:
    """Return the logarithm of an array, bounded below."""
    return np.log(np.maximum(rows, np.float32(TINY)))


def reduced(rows: Array, gap: Array, log: Callable[[Array], Array]) -> list[np.ndarray]:
    """Return distance, entropy and KL of one layer, one pair of heads at a time."""
    logs, heads = log(rows), range(rows.shape[1])
    distance = (rows * gap).sum(-1).mean(-1)
    entropy = -(rows * logs).sum(-1).mean(-1)
    same = 0 * distance[:, 0]
    kl = [
        (rows[:, a] * (logs[:, a] - logs[:, b])).sum(-1).mean(-1) if a != b else same
        for a in heads
        for b in heads
    ]
    if isinstance(rows, Tensor):
        distance, entropy = distance.cpu().numpy(), entropy.cpu().numpy()
        kl = torch.stack(kl).cpu().numpy()
    pairs = np.stack(list(kl), 1).reshape(len(distance), len(heads), len(heads))
    return [distance, entropy, pairs]


def joined(batches: list[list[list[np.ndarray]]]) -> Statistics:
    """Return batches of layers of statistics as one array a statistic."""
    layers = [
        [np.concatenate(parts) for parts in zip(*same, strict=True)]
        for same in zip(*batches, strict=True)
    ]
    return Statistics(*(np.stack(each) for each in zip(*layers, strict=True)))
