"""Which modules of a model attend, and in which block each one lies."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from attnprobe.attention.families import variant_of
from attnprobe.attention.reader import Reader
from attnprobe.errors import CaptureError

# pooling heads attend from one learned query after the last block: not a layer of the encoder
_POOLING = ("AttentionPoolLatent", "AttentionPool2d", "RotAttentionPool2d")


@dataclass(frozen=True)
class Site:
    """One attention module that must report.

    Attributes:
        name: Qualified name of the attention module.
        module: The attention module.
        block: The block around it, whose output is the layer's feature.
        reader: How to read it.
    """

    name: str
    module: nn.Module
    block: nn.Module
    reader: Reader


def discover(model: nn.Module, readers: Iterable[Reader]) -> list[Site]:
    """Return every attention module with its reader, in registration order.

    Raises:
        CaptureError: There is none, or one that no reader knows.
    """
    known = tuple(readers)
    without = left_out(model)
    sites: list[Site] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{site.name}.") for site in sites) or is_pooling(module):
            continue
        if not name or name in without:
            continue
        reader = next((reader for reader in known if reader.matches(module)), None)
        known_of = variant_of(module)
        if reader is not None and known_of is not None and known_of.refused:
            raise CaptureError(
                f"{name} ({type(module).__name__}) {known_of.refused}",
                "there is no attention matrix to measure; choose a model that has one",
            )
        if reader is not None:
            sites.append(Site(name, module, model.get_submodule(_block_of(name)), reader))
        elif _looks_like_attention(module):
            raise CaptureError(
                f"no reader knows the attention of {name} ({type(module).__name__})",
                "see `attnprobe inspect`; a reader is one file in attnprobe/attention",
            )
    if not sites:
        reason = next((f": {name} {reason}" for name, reason in without.items()), "")
        raise CaptureError(
            f"{type(model).__name__} has no attention layers that attnprobe can read{reason}",
            "give a ViT-like model, Swin or Swin V2; a convolutional network has no attention",
        )
    return sites


def left_out(model: nn.Module) -> dict[str, str]:
    """Return the modules that attend but not over patches, with what they do instead."""
    known = ((name, variant_of(module)) for name, module in model.named_modules())
    return {name: variant.left_out for name, variant in known if variant and variant.left_out}


def _block_of(name: str) -> str:
    """Return the block around an attention module: its entry in the encoder's list of blocks.

    >>> _block_of("blocks.0.attns.1.attn"), _block_of("layers.2.blocks.1.attn")
    ('blocks.0', 'layers.2.blocks.1')
    """
    listed = re.match(r"(?:.*\.)?blocks\.\d+(?=\.)", name)
    return listed[0] if listed else name.rpartition(".")[0]


def is_pooling(module: nn.Module) -> bool:
    """Whether a module pools tokens with a query of its own."""
    return type(module).__name__ in _POOLING


def _looks_like_attention(module: nn.Module) -> bool:
    return isinstance(getattr(module, "num_heads", None), int) and (
        hasattr(module, "qkv") or hasattr(module, "in_proj_weight") or hasattr(module, "q_proj")
    )
