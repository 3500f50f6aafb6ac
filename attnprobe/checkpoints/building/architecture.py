"""From names and shapes alone to the timm module that holds them.

Width, depth, patch, grid, MLP ratio, prefix tokens and classes are read from shapes. Heads are
read where a table or scale tells them; otherwise they are stated, published or assumed.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnprobe.errors import CheckpointError, FormatError, PartialLoadError
from attnprobe.formats import Converted, Format, Weights

# head counts that width / 64 does not give: (width, depth) -> heads
PUBLISHED_HEADS = {
    (1152, 27): 16,
    (1280, 32): 16,
    (1408, 40): 16,
    (1664, 48): 16,
    (1792, 64): 16,
}

# width of a head in entries of the last axis of rotary buffers
_ROTARY = {"rope.freqs_cos": 1, "rope_embed.periods": 4}


@dataclass(frozen=True)
class Plan:
    """Everything needed to build the module of a checkpoint.

    Attributes:
        family: vit, deit, beit, relpos, eva, swin or swinv2.
        kwargs: Keyword arguments of the timm class.
        size: Input height and width in pixels.
        assumed: Sentences about everything that was assumed rather than read.
        finish: Last step on the built module, for geometry that the file states in buffers.
    """

    family: str
    kwargs: dict[str, Any]
    size: tuple[int, int]
    assumed: tuple[str, ...] = ()
    finish: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class Shapes:
    """Shapes of an encoder by timm name, with what shapes cannot say.

    Attributes:
        shapes: Shape by timm name.
        layout: The checkpoint format.
        weights: The encoder before conversion, with its buffers.
        stated: What the file's own metadata or the config.json beside it states: heads,
            input_size, norm_eps, act, window_size, ...
        heads: Head count that the user gave.
        asked: Input size that the user asked for.
    """

    shapes: dict[str, tuple[int, ...]]
    layout: Format
    weights: Weights
    stated: Mapping[str, Any] = field(default_factory=dict)
    heads: int | None = None
    asked: tuple[int, int] | None = None

    def fact(self, key: str, default: Any = None) -> Any:
        """Return what the file states, else the custom of its release, else a default."""
        customs = self.layout.customs(self.weights)
        return self.stated.get(key, customs.get(key, default))

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def any(self, suffix: str) -> bool:
        """Return whether some block has a tensor of that suffix."""
        return any(name.endswith(suffix) for name in self.shapes)

    def first(self, suffix: str, prefix: str = "blocks.") -> tuple[int, ...]:
        """Return the shape of the first tensor with that prefix and suffix."""
        for name, shape in self.shapes.items():
            if name.startswith(prefix) and name.endswith(suffix):
                return shape
        raise PartialLoadError(
            f"no tensor named {prefix}*{suffix} in this checkpoint, expected one in every block",
            "the file is incomplete: get it again or save the whole encoder",
        )


def shapes_of(converted: Converted, layout: Format, weights: Weights, **stated: Any) -> Shapes:
    """Collect what the planners need from converted tensors."""
    shapes = {name: tuple(tensor.shape) for name, tensor in converted.tensors.items()}
    return Shapes(shapes, layout, weights, **stated)


def patch_embedding(shapes: Shapes) -> tuple[int, int, tuple[int, int]]:
    """Return width, channels and patch size.

    Raises:
        PartialLoadError: There is no patch embedding.
        FormatError: It is a convolutional stem.
    """
    name = "patch_embed.proj.weight"
    if "patch_embed.proj.0.weight" in shapes:
        raise FormatError(
            "the patch embedding is a convolutional stem (patch_embed.proj.0.weight, as in "
            "MoCo v3's vit_conv models); only plain patch embeddings are read",
            "use the plain ViT of the same release",
        )
    if name not in shapes or len(shapes.shapes[name]) != 4:
        found = shapes.shapes.get(name, "nothing")
        raise PartialLoadError(
            f"{name} must be [width, channels, rows, cols], found {found}",
            "the file is incomplete: get it again or save the whole encoder",
        )
    width, channels, rows, cols = shapes.shapes[name]
    return width, channels, (rows, cols)


def depth(names: Mapping[str, Any], prefix: str = "blocks.") -> int:
    """Return one more than the highest block index under a prefix.

    Raises:
        PartialLoadError: The index is beyond what the number of tensors allows.
    """
    pattern = re.compile(rf"^{re.escape(prefix)}(\d{{1,9}})\.")
    last = max((int(match[1]) for name in names if (match := pattern.match(name))), default=-1)
    if last >= len(names):  # building so many blocks would fill the memory
        raise PartialLoadError(
            f"{prefix}{last} is named, but a file of {len(names)} weights cannot hold {last} "
            "blocks before it",
            "the file is incomplete or was edited: get it again",
        )
    return 1 + last


def ratio(hidden: int, width: int) -> float:
    """Return a ratio for which `int(width * ratio)` is exactly `hidden`.

    >>> int(7 * ratio(29, 7))
    29
    """
    plain = hidden / width
    return plain if int(width * plain) == hidden else (hidden + 0.5) / width


def square(count: int) -> int | None:
    """Return the side of a square grid of `count` patches, or None.

    >>> square(196), square(195)
    (14, None)
    """
    side = math.isqrt(count) if count > 0 else 0
    return side if side > 0 and side * side == count else None


def pixels(grid: tuple[int, int], patch: int | tuple[int, int]) -> tuple[int, int]:
    """Return the input size of a patch grid.

    >>> pixels((14, 7), 16)
    (224, 112)
    """
    rows, cols = patch if isinstance(patch, tuple) else (patch, patch)
    return grid[0] * rows, grid[1] * cols


def choose_heads(shapes: Shapes, width: int, layers: int) -> tuple[int, tuple[str, ...]]:
    """Return the head count of a plain transformer and what was assumed for it.

    Raises:
        CheckpointError: It cannot be told, or `heads` contradicts the file.
    """
    read, where = _read_heads(shapes, width)
    if read is not None:
        if shapes.heads not in (None, read):
            raise CheckpointError(
                f"--heads {shapes.heads} contradicts {where}, which has {read} heads",
                "leave --heads out",
            )
        return read, ()
    heads, why = _tell_heads(shapes, width, layers)
    if heads < 1 or width % heads:
        raise CheckpointError(
            f"width {width} is not divisible by {heads} heads"
            if heads > 0
            else f"the file does not say its head count, and width {width} is not a multiple of 64",
            "give the head count with --heads",
        )
    return heads, why


def _read_heads(shapes: Shapes, width: int) -> tuple[int | None, str]:
    for name, shape in shapes.shapes.items():
        if name.endswith("relative_position_bias_table"):
            return shape[-1], name
        if name.endswith("attn.q_norm.weight") and shape[0] != width:
            return width // shape[0], name
    for name, tensor in shapes.weights.tensors.items():
        if name.endswith("rel_pos.mlp.fc2.weight") and tensor.ndim == 2:
            return tensor.shape[0], name
        dims = _ROTARY.get(name.rpartition("rope")[1] + name.rpartition("rope")[2], 0)
        if dims and tensor.ndim and not width % (dims * tensor.shape[-1]):
            return width // (dims * tensor.shape[-1]), name
    stated = shapes.stated.get("heads"), shapes.layout.customs(shapes.weights).get("heads")
    heads = next((value for value in stated if value), None)
    return heads, "what the file states"


def _tell_heads(shapes: Shapes, width: int, layers: int) -> tuple[int, tuple[str, ...]]:
    if shapes.heads is not None:
        return shapes.heads, (f"{shapes.heads} heads: given by the user",)
    known = PUBLISHED_HEADS | dict(shapes.fact("usual_heads", {}))
    if (width, layers) in known:
        heads = known[width, layers]
        return heads, (
            f"{heads} heads: as in the published {shapes.layout.name} model of width {width}, "
            "the file does not say (--heads overrides)",
        )
    dims = int(shapes.fact("head_width", 64))
    if width % dims:
        return 0, ()
    return width // dims, (
        f"{width // dims} heads: width {width} / {dims}, the file does not say (--heads overrides)",
    )


def stated_size(shapes: Shapes) -> tuple[int, int] | None:
    """Return the input size that the file's own metadata states, if any."""
    size = shapes.stated.get("input_size")
    return None if not size else (int(size[-2]), int(size[-1]))


def classes(shapes: Shapes, head: str = "head", width: int = 0) -> int:
    """Return the number of classes of a linear head that fits the encoder, else 0."""
    shape = shapes.shapes.get(f"{head}.weight", ())
    fits = len(shape) == 2 and shape[1] == width
    return shape[0] if fits and shapes.shapes.get(f"{head}.bias") == shape[:1] else 0
