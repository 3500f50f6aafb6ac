"""A checkpoint whose architecture is named: by the user, or by the config.json beside it.

timm builds the model of that name; names are taken as they are, or through the format table,
or through timm's own filter for that model, whichever leaves nothing missing.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from attnprobe.checkpoints.building import creating
from attnprobe.checkpoints.building.architecture import Plan, square
from attnprobe.checkpoints.building.ledgers import running_statistics
from attnprobe.checkpoints.origins.hub import near
from attnprobe.errors import CheckpointError, FormatError, PartialLoadError
from attnprobe.formats import Converted, Weights, convert, identify
from attnprobe.formats.conversion import reason_to_drop

LARGEST_ARGUMENT = 100_000
_CANDIDATES = 20_000  # tensors looked at for a prefix


def build(
    arch: str, weights: Weights, stated: Mapping[str, Any]
) -> tuple[Plan, nn.Module, Converted]:
    """Return plan, module with unwritten parameters, and the tensors under its names.

    Args:
        arch: timm model name, without a tag.
        weights: Every tensor of the file under its own name; `prefix` is empty.
        stated: What the file's metadata states: model_args, input_size.

    Raises:
        CheckpointError: timm has no such model, or it does not take the stated arguments.
        PartialLoadError: The file's tensors are not that model's.
    """
    name = arch.partition(".")[0]
    if not timm.is_model(name):
        raise CheckpointError(f"timm has no model {name!r}", near(name))
    arguments = dict(stated.get("model_args") or {})
    _check_arguments(name, arguments, len(weights.tensors))
    with torch.device("meta"):  # names and shapes, without memory
        module = _create(name, arguments)
    prefix = _prefix(weights.tensors, [key for key, _ in module.named_parameters()])
    inner = {key.removeprefix(prefix): value for key, value in weights.tensors.items()
             if key.startswith(prefix)}  # fmt: skip
    arguments |= _sizes(module, inner, arguments)
    module = _create(name, arguments)
    found = _converted(name, module, inner, weights, prefix)
    told = f"architecture {name}: named, not read from shapes"
    return plan_of(module, arguments, told), module, found


def plan_of(module: nn.Module, arguments: Mapping[str, Any], *assumed: str) -> Plan:
    """Return the plan of a module that was built elsewhere."""
    channels, rows, cols = _input(module)
    return Plan("named", {**arguments, "in_chans": channels}, (rows, cols), assumed)


def _check_arguments(name: str, arguments: Mapping[str, Any], tensors: int) -> None:
    """Refuse arguments for which building alone would fill the memory or never end."""
    for key, value in arguments.items():
        numbers = [x for x in (value if isinstance(value, list | tuple) else [value])
                   if isinstance(x, int | float)]  # fmt: skip
        most = tensors if "depth" in key else LARGEST_ARGUMENT
        if any(not 0 <= abs(number) <= most for number in numbers):
            raise CheckpointError(
                f"{key} = {value} for {name}: more than a file of {tensors} tensors can hold",
                "correct the config.json beside the file, or name the model with --arch",
            )


def _create(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        with creating.unwritten():
            return timm.create_model(name, pretrained=False, **arguments)
    except Exception as error:  # anything at all may be in a stranger's config.json
        raise CheckpointError(
            f"timm cannot build {name} with {arguments} ({type(error).__name__}: {error})",
            "correct the config.json beside the file, or name the model with --arch",
        ) from error


def _prefix(tensors: Mapping[str, Any], wanted: list[str]) -> str:
    """Return what stands before most of the model's own names."""
    votes: dict[str, int] = {"": 0}
    ends = set(wanted)
    for name in list(tensors)[:_CANDIDATES]:
        words = name.split(".")
        for at in range(len(words)):
            if ".".join(words[at:]) in ends:
                prefix = ".".join(words[:at]) + ("." if at else "")
                votes[prefix] = votes.get(prefix, 0) + 1
                break
    return max(votes, key=lambda prefix: (votes[prefix], -len(prefix)))


def _sizes(
    module: nn.Module, tensors: Mapping[str, Tensor], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return classes and input size of the file where they are not the model's own."""
    found: dict[str, Any] = {}
    config: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    heads = config.get("classifier") or "head"
    head = tensors.get(f"{heads if isinstance(heads, str) else heads[0]}.weight")
    if "num_classes" not in given:
        found["num_classes"] = int(head.shape[0]) if head is not None and head.ndim >= 1 else 0
    ours, theirs = getattr(module, "pos_embed", None), tensors.get("pos_embed")
    embed: Any = getattr(module, "patch_embed", None)
    if "img_size" in given or ours is None or theirs is None or ours.shape == theirs.shape:
        return found
    if theirs.ndim == ours.ndim == 3 and hasattr(embed, "num_patches"):
        extra = ours.shape[1] - embed.num_patches
        side = square(theirs.shape[1] - extra)
        if side:
            found["img_size"] = tuple(side * step for step in embed.patch_size)
    return found


def _converted(
    name: str, module: nn.Module, tensors: dict[str, Tensor], weights: Weights, prefix: str
) -> Converted:
    """Return the reading of the file's names that leaves the fewest of the model's missing."""
    wanted = dict(module.named_parameters())
    best: Converted | None = None
    for reading in _readings(name, module, tensors, weights, prefix):
        if best is None or _missing(wanted, reading) < _missing(wanted, best):
            best = reading
        if not _missing(wanted, best):
            break
    if best is None or _missing(wanted, best) == len(wanted):
        raise PartialLoadError(
            f"none of the {len(wanted)} weights of {name} is in the file",
            "name another model with --arch, or leave it out",
        )
    return without_others(module, best)


def without_others(module: nn.Module, found: Converted) -> Converted:
    """Drop what the model computes itself, and what its encoder does not use."""
    wanted = dict(module.named_parameters()) | running_statistics(module)
    computed = {name for name, _ in module.named_buffers()} - set(wanted)
    shared = _shared(module, found.tensors)
    reasons: dict[str, str] = {}
    for name in set(found.tensors).difference(wanted):
        reason = "buffer, rebuilt from the geometry" if name in computed else reason_to_drop(name)
        if name.endswith("num_batches_tracked"):
            reason = "a counter of training steps"
        reason = f"the same as {shared[name]}" if name in shared else reason
        if reason is not None:
            reasons[name] = reason
    return Converted(
        {name: tensor for name, tensor in found.tensors.items() if name not in reasons},
        {name: old for name, old in found.origin.items() if name not in reasons},
        found.dropped | {found.origin[name]: reason for name, reason in reasons.items()},
    )


def _readings(
    name: str, module: nn.Module, tensors: dict[str, Tensor], weights: Weights, prefix: str
) -> Iterator[Converted]:
    outside = {
        key: f"outside the model ({prefix!r})"
        for key in weights.tensors
        if not key.startswith(prefix)
    }
    yield Converted(tensors, {key: prefix + key for key in tensors}, outside)
    entry = model_entrypoint(name).__module__
    renames: Callable[..., Any] | None = getattr(sys.modules[entry], "checkpoint_filter_fn", None)
    if renames is not None:
        found = _filtered(renames, tensors, module)
        if found is not None:
            origin = {key: prefix + key if key in tensors else "timm's filter" for key in found}
            yield Converted(found, origin, outside)
    try:
        yield convert(weights, identify(weights))
    except FormatError:
        return


def _filtered(
    renames: Callable[..., Any], tensors: dict[str, Tensor], module: nn.Module
) -> dict[str, Tensor] | None:
    try:
        found = renames(dict(tensors), module)
    except Exception:  # noqa: BLE001 - timm's filters fail in any way on names that they do not know
        return None
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def _shared(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return names of a parameter that has another name too and is equal under both."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        one = first.setdefault(id(parameter), name)
        both = tensors.get(one), tensors.get(name)
        if one != name and both[0] is not None and both[1] is not None and both[0].equal(both[1]):
            found[name] = one
    return found


def _missing(wanted: Mapping[str, Any], reading: Converted) -> int:
    return sum(name not in reading.tensors for name in wanted)


def _input(module: nn.Module) -> tuple[int, int, int]:
    config: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    channels, *size = config.get("input_size") or (3, 224, 224)
    embed = getattr(module, "patch_embed", None)
    built, first = getattr(embed, "img_size", None), getattr(embed, "proj", None)
    rows, cols = built if isinstance(built, tuple) else size
    return int(getattr(first, "in_channels", channels)), rows, cols
