"""From one opened file to a module: unwrap, identify, convert, plan, build, fill."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

from attnprobe.checkpoints.building import architecture, creating, ledgers, named, plans
from attnprobe.checkpoints.masked import Masked, of_file
from attnprobe.checkpoints.reading import (
    checksums,
    configs,
    extents,
    hashing,
    metadata,
    sharded,
    weightfiles,
)
from attnprobe.checkpoints.request import LoadOptions
from attnprobe.errors import CheckpointError, FormatError, PartialLoadError
from attnprobe.formats import Converted, Format, Weights, convert, identify, unwrap
from attnprobe.formats.containers import named_tensors
from attnprobe.types import CheckpointSpec, LoadLedger

Loaded = tuple[CheckpointSpec, nn.Module, LoadLedger, float | None, Masked | None]


def load_file(path: Path, wanted: LoadOptions, own: Sequence[Format] = ()) -> Loaded:
    """Return spec, module, ledger, epoch and way of masking of a checkpoint file.

    Args:
        path: The file.
        wanted: What the user asked for.
        own: The user's own formats.

    Raises:
        CheckpointError: It cannot be read, is no vision transformer, or is incomplete.
    """
    try:
        opened = sharded.read(path, trust=wanted.trust)
        with hashing.digesting(opened.parts or (path,)) as digest:
            with checksums.verified(opened.checks):
                found = _load(opened, wanted, own)
            return replace(found[0], sha256=digest()), *found[1:]
    except CheckpointError as error:
        if path.name in error.cause:
            raise
        raise type(error)(f"{path}: {error.cause}", error.remedy) from error


def _load(opened: weightfiles.Opened, wanted: LoadOptions, own: Sequence[Format]) -> Loaded:
    reading, ledger = _filled(opened, wanted, own)
    spec = _spec(reading, opened, wanted)
    epoch = metadata.epoch(opened.content, opened.metadata)
    return spec, reading.module, ledger, epoch, of_file(opened, reading.module, wanted.part)


def _filled(
    opened: weightfiles.Opened, wanted: LoadOptions, own: Sequence[Format]
) -> tuple["_Reading", LoadLedger]:
    arch = wanted.arch or _stated_architecture(opened)
    if not arch and (trained := _trained_as(opened)):
        try:
            reading = _named(trained, opened, wanted)
            return reading, ledgers.fill(reading.module, reading.converted)
        except PartialLoadError:
            pass  # trained under that name with other arguments: shapes tell
    reading = _named(arch, opened, wanted) if arch else _read(opened, wanted, own)
    return reading, ledgers.fill(reading.module, reading.converted)


def _stated_architecture(opened: weightfiles.Opened) -> str:
    """Return the model that timm's own config.json names, which says more than shapes do."""
    name = opened.config.get("architecture")
    return name if isinstance(name, str) and "pretrained_cfg" in opened.config else ""


def _trained_as(opened: weightfiles.Opened) -> str:
    """Return the timm model that timm's training script wrote into its checkpoint, if any."""
    content = opened.content
    name = dict.get(content, "arch") if isinstance(content, dict) else None
    return name if isinstance(name, str) and timm.is_model(name) else ""


def _read(opened: weightfiles.Opened, wanted: LoadOptions, own: Sequence[Format]) -> "_Reading":
    """Let the names tell the format and the shapes the architecture."""
    weights, layout = _identified(opened, wanted.part, own)
    extents.check(weights.tensors, opened)
    converted = _converted(weights, layout)
    _check_stated(converted, opened)
    if layout.build is not None:
        return _built(layout, converted, opened, weights.notes)
    shapes = architecture.shapes_of(
        converted,
        layout,
        weights,
        stated=opened.metadata,
        heads=wanted.heads,
        asked=wanted.img_size,
    )
    plan, module = _module(shapes)
    name = creating.architecture_name(plan, module)
    return _Reading(plan, module, converted, name, layout, weights.notes)


def _identified(
    opened: weightfiles.Opened, part: str | None, own: Sequence[Format]
) -> tuple[Weights, Format]:
    """Return the encoder and its format; formats with anchors of their own are asked first."""
    for layout in own:
        if layout.anchor:
            with suppress(FormatError):  # its anchor is not in this file
                weights = unwrap(
                    opened.content, part=part, config=opened.config, anchor=layout.anchor
                )
                if layout.detect(weights):
                    return weights, layout
    weights = unwrap(opened.content, part=part, config=opened.config)
    return weights, identify(weights, own)


def _converted(weights: Weights, layout: Format) -> Converted:
    try:
        return convert(weights, layout)
    except CheckpointError:
        raise
    except Exception as error:  # shapes that the release does not have
        raise PartialLoadError(
            f"the tensors do not fit format {layout.name} ({type(error).__name__}: {error})",
            "the file was edited or is of an unknown layout: get it again",
        ) from error


def _built(
    layout: Format, converted: Converted, opened: weightfiles.Opened, notes: tuple[str, ...]
) -> "_Reading":
    """Let the format make its own module."""
    make: Any = layout.build
    try:
        module = make(converted.tensors, opened.metadata)
    except Exception as error:  # it is the user's code
        raise FormatError(
            f"format {layout.name} could not build its module ({type(error).__name__}: {error})",
            "correct its build function",
        ) from error
    converted = named.without_others(module, converted)
    plan = named.plan_of(module, {})
    return _Reading(plan, module, converted, type(module).__name__, layout, notes)


def _named(name: str, opened: weightfiles.Opened, wanted: LoadOptions) -> "_Reading":
    """Let timm build the architecture that was named."""
    flat, beside, notes = named_tensors(opened.content, wanted.part)
    weights = Weights(flat, "", {}, frozenset(flat), beside, notes, opened.config)
    extents.check(flat, opened)
    plan, module, converted = named.build(name, weights, opened.metadata)
    return _Reading(plan, module, converted, name.partition(".")[0], None, notes)


@dataclass(frozen=True)
class _Reading:
    """What a file turned out to be.

    Attributes:
        plan: How its module was built.
        module: The module, its parameters unwritten.
        converted: The file's tensors under the module's names.
        architecture: timm's name of the module, or a description.
        layout: The checkpoint format, or None where the architecture was named.
        notes: Sentences about choices made on the way.
    """

    plan: architecture.Plan
    module: nn.Module
    converted: Converted
    architecture: str
    layout: Format | None
    notes: tuple[str, ...]


def _module(shapes: architecture.Shapes) -> tuple[architecture.Plan, nn.Module]:
    try:
        plan = plans.plan(shapes)
        return plan, creating.build(plan)
    except CheckpointError:
        raise
    except Exception as error:  # shapes that no release has; timm fails in any way on them
        raise PartialLoadError(
            f"the shapes of the tensors make no transformer ({type(error).__name__}: {error})",
            "the file was edited or is of an unknown layout: get it again",
        ) from error


def _spec(reading: _Reading, opened: weightfiles.Opened, wanted: LoadOptions) -> CheckpointSpec:
    stated, plan, layout = opened.metadata, reading.plan, reading.layout
    mean, std, whose = _normalisation(reading)
    assumed = (*opened.notes, *reading.notes, *plan.assumed, *plans.unusual_depth(plan))
    if "mean" not in stated or "std" not in stated:
        assumed = (*assumed, f"mean {mean}, std {std}: the custom of {whose}, not in the file")
    return CheckpointSpec(
        name=wanted.name or stated.get("name") or weightfiles.label(opened.path),
        architecture=reading.architecture,
        model_args={key: value for key, value in plan.kwargs.items() if _is_plain(value)},
        format=layout.name if layout else "named",
        input_size=(plan.kwargs["in_chans"], *plan.size),
        mean=tuple(stated.get("mean", mean)),
        std=tuple(stated.get("std", std)),
        interpolation=stated.get("interpolation", "bicubic"),
        crop_pct=float(stated.get("crop_pct", 0.9)),
        objective=stated.get("objective", layout.objective if layout else "unknown"),
        assumed=assumed,
    )


def _normalisation(reading: _Reading) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    if reading.layout is not None:
        return *reading.layout.normalisation, f"format {reading.layout.name}"
    config: dict[str, Any] = getattr(reading.module, "pretrained_cfg", {})
    return tuple(config["mean"]), tuple(config["std"]), f"timm's {reading.architecture}"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _check_stated(converted: Converted, opened: weightfiles.Opened) -> None:
    """Refuse a config.json that is about other weights."""
    shapes = {name: tuple(tensor.shape) for name, tensor in converted.tensors.items()}
    told = configs.contradiction(opened.metadata, shapes)
    if told:
        raise CheckpointError(told, "put the config.json of these weights beside them, or none")
