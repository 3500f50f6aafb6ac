"""Give an encoder's tensors timm's names, by the rules of its format."""

import re
from typing import TYPE_CHECKING

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import Converted, Format

if TYPE_CHECKING:
    from torch import Tensor

_BUFFERS = "buffer, rebuilt from the geometry"
_PREDICTION = "head of the pre-training task"
DROP = (
    (r"(^|\.)(relative_position_index|attn_mask|relative_coords_table)$", _BUFFERS),
    (r"^(mask_token|masked_embed)$", "mask token, unused on whole images"),
    (r"^decoder", "decoder of the pre-training task"),
    (r"^(lm_head|cls_pt_layers|cls_pt_lm_head|pred|predictor|aux_head)\.", _PREDICTION),
    (r"^heads?\.(\d+|mlp|last_layer)\.", "projection head of the pre-training task"),
    (r"^pre_logits[./]", "representation layer between encoder and head"),
)
_OTHERS = re.compile(r"^(classifier|fc|proj_head|projection_head|projector)\.")


def convert(weights: Weights, layout: Format) -> Converted:
    """Give an encoder's tensors timm's names and drop what is not the encoder's."""
    dropped = dict(weights.outside)
    kept: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        reason = reason_to_drop(name, layout.drop)
        if reason is None:
            kept[name] = tensor
        else:
            dropped[weights.file_name(name)] = reason
    origin: dict[str, str] = {}
    if layout.prepare is not None:
        kept, origin = layout.prepare(kept)
    if any(name.startswith("layers.0.downsample.") for name in kept):
        kept, origin = _later_downsample(kept)
    renamed = {_rename(name, layout.rename): name for name in kept}
    for new in [new for new in renamed if _OTHERS.match(new)]:  # after renaming: some are heads
        old = renamed.pop(new)
        dropped[weights.file_name(origin.get(old, old))] = "head of another task"
    return Converted(
        {new: kept[old] for new, old in renamed.items()},
        {new: weights.file_name(origin.get(old, old)) for new, old in renamed.items()},
        dropped,
    )


def reason_to_drop(name: str, rules: tuple[tuple[str, str], ...] = ()) -> str | None:
    """Return why a tensor is no part of the encoder, or None where it is one."""
    every = (*rules, *DROP)
    return next((reason for pattern, reason in every if re.search(pattern, name)), None)


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _later_downsample(
    tensors: "dict[str, Tensor]",
) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Move patch merging from the end of a stage to the start of the next, as timm has it."""

    def later(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    origin = {re.sub(r"^layers\.(\d+)\.downsample\.", later, name): name for name in tensors}
    return {new: tensors[old] for new, old in origin.items()}, origin
