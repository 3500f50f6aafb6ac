"""Which modules of a model attend, and in which block each one lies."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
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
    _check_visible(model)
    without = left_out(model)
    sites: list[Site] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{site.name}.") for site in sites) or is_pooling(module):
            continue
        if not name or any(name == other or name.startswith(f"{other}.") for other in without):
            continue
        reader = next((reader for reader in known if reader.matches(module)), None)
        known_of = variant_of(module)
        if reader is not None and known_of is not None and known_of.refused:
            raise CaptureError(
                f"{name} ({type(module).__name__}) {known_of.refused}",
                "there is no attention of patches of an image to measure; choose another model",
            )
        if reader is not None:
            sites.append(Site(name, module, _block_of(model, name), reader))
        elif _looks_like_attention(module):
            raise CaptureError(
                f"no reader knows the attention of {name} ({type(module).__name__})",
                "see `attnprobe inspect`; a reader is one file in attnprobe/attention",
            )
    if not sites:
        reason = next((f": {name} {reason}" for name, reason in without.items()), "")
        raise CaptureError(
            f"{type(model).__name__} has no attention layers that attnprobe can read{reason}",
            "give a model that calls scaled_dot_product_attention, nn.MultiheadAttention or a "
            "softmax over its keys in a module of its own; a convolutional network has none",
        )
    return sites


def _check_visible(model: nn.Module) -> None:
    """Refuse a model whose attention torch runs out of sight."""
    for name, module in model.named_modules():
        hidden = "scripted" if isinstance(module, torch.jit.ScriptModule) else ""
        hidden = "compiled" if hasattr(module, "_orig_mod") else hidden
        if hidden:
            raise _hidden(name, module, hidden)
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise CaptureError(
                f"{name or 'the model'} is spread over {len(module.device_ids)} devices",
                "give its own .module, which runs on one of them",
            )


def check_uncompiled(model: nn.Module, sites: Iterable[Site]) -> None:
    """Refuse attention that runs in a module compiled in place; what lies beside it may be.

    Raises:
        CaptureError: There is such a module.
    """
    paths = (site.name.split(".") for site in sites)
    around = {".".join(path[:count]) for path in paths for count in range(len(path) + 1)}
    for name in sorted(around):
        module = model.get_submodule(name)
        replaced = vars(module).get("forward")
        if module._compiled_call_impl or hasattr(replaced, "_torchdynamo_orig_callable"):
            raise _hidden(name, module, "compiled")


def _hidden(name: str, module: nn.Module, how: str) -> CaptureError:
    return CaptureError(
        f"{name or 'the model'} ({type(module).__name__}) is {how}, which hides its attention",
        "give the module as it was before torch.jit or torch.compile",
    )


def left_out(model: nn.Module) -> dict[str, str]:
    """Return the modules that attend but not over patches, with what they do instead."""
    known = ((name, variant_of(module)) for name, module in model.named_modules())
    return {name: variant.left_out for name, variant in known if variant and variant.left_out}


def _block_of(model: nn.Module, name: str) -> nn.Module:
    """Return the block around an attention module: its entry in the encoder's list of blocks."""
    listed = re.match(r"(?:.*\.)?(?:blocks|fusion)\.\d+(?=\.)", name)
    found = model.get_submodule(listed[0]) if listed else None
    if found is not None and not isinstance(found, nn.ModuleList) and not _several(found):
        return found
    entry = name
    while entry:
        container, _, _ = entry.rpartition(".")
        block = model.get_submodule(entry)
        if _lists(model.get_submodule(container), block):
            return block
        entry = container
    return model.get_submodule(name.rpartition(".")[0] or name)


def _lists(container: nn.Module, block: nn.Module) -> bool:
    """Whether a container holds blocks, and not the parts of one."""
    if isinstance(container, nn.Sequential):
        return sum(type(part) is type(block) for part in container) > 1
    return isinstance(container, nn.ModuleList)


def _several(container: nn.Module) -> bool:
    """Whether a container holds modules of one class in turn, as a stage does its blocks."""
    return isinstance(container, nn.Sequential) and len({type(x) for x in container}) == 1 < len(
        container
    )


def is_pooling(module: nn.Module) -> bool:
    """Whether a module pools tokens with a query of its own."""
    return type(module).__name__ in _POOLING


def _looks_like_attention(module: nn.Module) -> bool:
    return isinstance(getattr(module, "num_heads", None), int) and (
        hasattr(module, "qkv") or hasattr(module, "in_proj_weight") or hasattr(module, "q_proj")
    )
