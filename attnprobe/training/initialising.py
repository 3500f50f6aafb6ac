"""Filling a backbone from a checkpoint's encoder, resampled to its grid and windows."""

import re
import warnings
from collections.abc import Container, Mapping
from typing import Any

from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor, nn

from attnprobe import checkpoints
from attnprobe.errors import PartialLoadError
from attnprobe.types import LoadLedger

HEADS = ("head.", "head_dist.", "fc_norm.", "norm.")  # what fine-tuning may begin anew
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def initialise(
    backbone: nn.Module, source: str, *, drop_last: int = 0, trust: bool = False
) -> LoadLedger:
    """Fill a backbone from a checkpoint's encoder; classifiers and last norms may be absent.

    Position embeddings and tables of relative positions are resampled by timm to the
    backbone's grid; a table shared by all layers (SimMIM) is copied to each layer that has
    its own, as the official fine-tuning does.

    Raises:
        PartialLoadError: Some weight of the encoder is not in the checkpoint.
    """
    loaded = checkpoints.load(source, trust=trust)
    given, held = loaded.module.state_dict(), backbone.state_dict()
    matched: dict[str, Tensor] = {}
    resampled: list[str] = []
    for name, target in held.items():
        found = given.get(name, _shared(name, given))
        if found is None or (found.shape != target.shape and name.startswith("head")):
            continue
        if found.shape != target.shape:
            found = _resampled(name, found, target, backbone, loaded.module)
            resampled.append(f"{name}: to {list(target.shape)}")
        matched[name] = found
    missing = [name for name, _ in backbone.named_parameters() if name not in matched]
    if lost := [name for name in missing if not name.startswith(HEADS)]:
        raise PartialLoadError(
            f"{source} has no weights for {lost[0]} ({len(lost)} of {len(held)} in all) "
            f"of {type(backbone).__name__}",
            "give the --model and --model-arg of the checkpoint, or leave --model out",
        )
    unused = _unused(given, matched, backbone, drop_last)
    backbone.load_state_dict(matched, strict=False)
    return LoadLedger(
        matched=tuple(matched),
        resampled=tuple(resampled),
        dropped=unused,
        missing=tuple(missing),
    )


def _shared(name: str, given: dict[str, Tensor]) -> Tensor | None:
    """Return the one table of all layers for a layer's own."""
    own = name.startswith("blocks.") and name.endswith(".attn.relative_position_bias_table")
    return given.get("rel_pos_bias.relative_position_bias_table") if own else None


def _resampled(
    name: str, found: Tensor, target: Tensor, backbone: nn.Module, source: nn.Module
) -> Tensor:
    """Resample positions to another grid or window.

    Raises:
        PartialLoadError: The shapes differ otherwise.
    """
    new: Any = getattr(backbone, "patch_embed", None)
    old: Any = getattr(source, "patch_embed", None)
    if name.endswith("pos_embed") and found.shape[-1] == target.shape[-1]:
        prefix = target.shape[1] - new.num_patches
        return resample_abs_pos_embed(
            found, list(new.grid_size), list(old.grid_size), num_prefix_tokens=prefix
        )
    if name.endswith("relative_position_bias_table") and found.shape[1] == target.shape[1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the layout of timm's own temporary tensors
            return resize_rel_pos_bias_table(found, _window(name, backbone), tuple(target.shape))
    raise PartialLoadError(
        f"{name} has shape {list(found.shape)} in the checkpoint and {list(target.shape)} in "
        f"{type(backbone).__name__}",
        "give the --model and --model-arg of the checkpoint",
    )


def _window(name: str, backbone: nn.Module) -> Any:
    """Return the window of the module that owns a table."""
    owner: Any = backbone.get_submodule(name.rpartition(".")[0])
    return owner.window_size


def _unused(
    given: Mapping[str, Tensor], matched: Container[str], backbone: nn.Module, drop_last: int
) -> tuple[str, ...]:
    """Say of each weight of a checkpoint that is not used why it is not.

    Raises:
        PartialLoadError: The blocks left out are not the checkpoint's last ones.
    """
    blocks: Any = getattr(backbone, "blocks", ())
    whole = {int(found[1]) for name in given if (found := _BLOCK.match(name))}
    if drop_last and len(whole) != len(blocks) + drop_last:
        raise PartialLoadError(
            f"the checkpoint has {len(whole)} blocks, not {len(blocks) + drop_last}, so the "
            f"{drop_last} left out would not be its last",
            "give the --model and --model-arg of the checkpoint, or leave --model out",
        )
    lines = []
    for name in given:
        found = _BLOCK.match(name)
        last = drop_last and found and int(found[1]) >= len(blocks)
        why = f"of the last {drop_last} blocks, left out on purpose" if last else "not in the model"
        if name not in matched:
            lines.append(f"{name}: {why}")
    return tuple(lines)
