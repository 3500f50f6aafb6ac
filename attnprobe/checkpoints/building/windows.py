"""Plans of Swin and Swin V2: stages, windows and the input size from shapes and buffers.

A stage's window is read from its table of relative positions (or table of coordinates), its
grid from the shift mask, which has one entry a window. Without buffers the last stage is
taken to be one window.
"""

import math
import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.checkpoints.building import architecture
from attnprobe.checkpoints.building.architecture import Plan, Shapes
from attnprobe.errors import CheckpointError, FormatError, PartialLoadError


def plan(shapes: Shapes) -> Plan:
    """Return how to build a Swin or Swin V2 from an encoder's shapes.

    Raises:
        FormatError: A variant that timm cannot hold (absolute positions, MoE).
        CheckpointError: The window cannot be told.
    """
    _refuse_variants(shapes)
    width, channels, patch = architecture.patch_embedding(shapes)
    stages = architecture.depth(shapes.shapes, "layers.")
    windows, told = _windows(shapes, stages)
    grid, assumed = _grid(shapes, windows)
    size = architecture.pixels(grid, patch)
    kwargs: dict[str, Any] = {
        "img_size": size,
        "patch_size": patch[0],
        "in_chans": channels,
        "embed_dim": width,
        "depths": tuple(
            architecture.depth(shapes.shapes, f"layers.{i}.blocks.") for i in range(stages)
        ),
        "num_heads": tuple(_stage_heads(shapes, i) for i in range(stages)),
        "window_size": _one_window(windows, grid),
        "mlp_ratio": architecture.ratio(shapes.first(".mlp.fc1.weight", "layers.0.")[0], width),
        "num_classes": architecture.classes(shapes, "head.fc", width * 2 ** (stages - 1)),
        "qkv_bias": shapes.any(".attn.qkv.bias") or shapes.any(".attn.q_bias"),
    }
    eps = float(shapes.fact("norm_eps", 1e-5))
    if eps != 1e-5:
        kwargs["norm_layer"] = partial(nn.LayerNorm, eps=eps)
    if shapes.layout.family == "swinv2":
        kwargs["pretrained_window_sizes"] = _pretrained_windows(shapes, stages)
    return Plan(shapes.layout.family, kwargs, size, (*told, *assumed))


def _refuse_variants(shapes: Shapes) -> None:
    if "absolute_pos_embed" in shapes:
        raise FormatError(
            "absolute_pos_embed: this Swin has absolute positions, which timm's Swin does not",
            "use a checkpoint with relative positions only",
        )
    if shapes.any(".mlp.gate.wg.weight") or any("experts" in name for name in shapes.shapes):
        raise FormatError("this Swin is a mixture of experts", "use a dense checkpoint")


def _stage_heads(shapes: Shapes, stage: int) -> int:
    prefix = f"layers.{stage}.blocks."
    if shapes.layout.family == "swinv2":
        heads = shapes.first(".attn.logit_scale", prefix)[0]
    else:
        heads = shapes.first(".attn.relative_position_bias_table", prefix)[-1]
    if shapes.heads is not None:
        raise CheckpointError(
            f"--heads {shapes.heads} contradicts the file: its heads are read from every stage's "
            f"tables ({heads} in stage {stage})",
            "leave --heads out",
        )
    return heads


def _buffers(shapes: Shapes, stage: int, name: str) -> list[Tensor]:
    pattern = re.compile(
        rf"^(?:encoder\.)?(?:layers|stages)\.{stage}\.blocks\.\d+\.(?:\w+\.)*{name}$"
    )
    return [tensor for key, tensor in shapes.weights.tensors.items() if pattern.match(key)]


def _windows(shapes: Shapes, stages: int) -> tuple[list[int], tuple[str, ...]]:
    """Return the window side of every stage, and what was assumed for them."""
    found = [_stage_window(shapes, stage) for stage in range(stages)]
    known = [window for window in found if window is not None]
    if len(known) == stages:
        return known, ()
    stated = _stated_window(shapes)
    if stated is None:
        raise CheckpointError(
            "the file does not say its window size: Swin V2 without its buffers "
            "(relative_position_index, relative_coords_table) fits any window",
            "give the official file, keep its config.json beside it, or load it as timm:NAME",
        )
    return _shrunk(shapes, stated, stages), ()


def _stated_window(shapes: Shapes) -> int | None:
    arguments = shapes.stated.get("model_args") or {}
    window = arguments.get("window_size", shapes.stated.get("window_size"))
    return int(window) if isinstance(window, int) else None


def _shrunk(shapes: Shapes, window: int, stages: int) -> list[int]:
    """Return each stage's window: no larger than the stage's grid, where the input is stated."""
    size = architecture.stated_size(shapes)
    if size is None:
        return [window] * stages
    patch = shapes.shapes["patch_embed.proj.weight"][-2:]
    grid = [side // step for side, step in zip(size, patch, strict=True)]
    return [max(1, min(window, *(side // 2**stage for side in grid))) for stage in range(stages)]


def _stage_window(shapes: Shapes, stage: int) -> int | None:
    prefix = f"layers.{stage}.blocks."
    if shapes.layout.family == "swin":
        rows = shapes.first(".attn.relative_position_bias_table", prefix)[0]
        span = architecture.square(rows)
        if span is None or span % 2 == 0:
            raise PartialLoadError(
                f"stage {stage}'s table of relative positions has {rows} rows, "
                "expected the square of an odd number",
                "only square windows are read",
            )
        return (span + 1) // 2
    for index in _buffers(shapes, stage, "relative_position_index"):
        return math.isqrt(index.shape[0])
    for table in _buffers(shapes, stage, "relative_coords_table"):
        return (table.shape[1] + 1) // 2
    return None


def _grid(shapes: Shapes, windows: list[int]) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return the patch grid of the first stage and what was assumed for it."""
    patch = shapes.shapes["patch_embed.proj.weight"][-2:]
    for stage, window in enumerate(windows):
        for mask in _buffers(shapes, stage, "attn_mask"):
            rows, cols = _mask_grid(mask)
            return (rows * window * 2**stage, cols * window * 2**stage), ()
    stated = architecture.stated_size(shapes)
    if stated is not None:
        return (stated[0] // patch[0], stated[1] // patch[1]), ()
    stage = next((i for i, window in enumerate(windows) if window < windows[0]), len(windows) - 1)
    side = windows[stage] * 2**stage
    if stage and windows[stage] < windows[0]:
        return (side, side), ()  # a shrunken window is as large as its grid
    return (side, side), (
        f"input size {side * patch[0]}: the last stage taken as one window of {windows[stage]}",
    )


def _mask_grid(mask: Tensor) -> tuple[int, int]:
    """Windows down and across: in the first row only the last window is cut by the shift."""
    cut = mask.flatten(1).ne(0).any(1)  # [windows]
    cols = int(torch.argmax(cut.int())) + 1
    return mask.shape[0] // cols, cols


def _one_window(windows: list[int], grid: tuple[int, int]) -> int | tuple[int, ...]:
    """Return one number where timm's shrinking to the grid gives the stages' windows."""
    largest = max(windows)
    if grid[0] != grid[1]:
        return tuple(windows)
    shrunk = [min(largest, *(side // 2**i for side in grid)) for i in range(len(windows))]
    return largest if shrunk == windows else tuple(windows)


def _pretrained_windows(shapes: Shapes, stages: int) -> tuple[int, ...]:
    """Read each stage's normalising window off its log-spaced coordinates, 0 if its own."""
    found = []
    for stage in range(stages):
        tables = _buffers(shapes, stage, "relative_coords_table")
        window = 0
        if tables:
            own = (tables[0].shape[1] + 1) // 2
            reach = (8.0 ** float(tables[0].double().max()) - 1.0) / 8.0  # (own - 1) / (w - 1)
            window = round((own - 1) / reach) + 1 if reach > 0 else 0
            window = 0 if window == own else window
        found.append(window)
    if not any(found):
        arguments = shapes.stated.get("model_args") or {}
        stated = arguments.get("pretrained_window_sizes", shapes.fact("pretrained_window_sizes"))
        return tuple(stated) if stated and len(stated) == stages else tuple(found)
    return tuple(found)
