"""From one opened file to a module: unwrap, identify, convert, plan, build, fill."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attnprobe.checkpoints import architecture, building, ledgers, metadata, plans, weightfiles
from attnprobe.checkpoints.request import LoadOptions
from attnprobe.errors import CheckpointError, PartialLoadError
from attnprobe.formats import Format, convert, identify, unwrap
from attnprobe.types import CheckpointSpec, LoadLedger

Loaded = tuple[CheckpointSpec, nn.Module, LoadLedger, float | None]


def load_file(path: Path, wanted: LoadOptions) -> Loaded:
    """Return spec, module, ledger and epoch of a checkpoint file.

    Raises:
        CheckpointError: It cannot be read, is no vision transformer, or is incomplete.
    """
    try:
        return _load(weightfiles.read(path, trust=wanted.trust), wanted)
    except CheckpointError as error:
        if path.name in error.cause:
            raise
        raise type(error)(f"{path}: {error.cause}", error.remedy) from error


def _load(opened: weightfiles.Opened, wanted: LoadOptions) -> Loaded:
    weights = unwrap(opened.content, part=wanted.part, config=opened.config)
    layout = identify(weights)
    converted = convert(weights, layout)
    _check_extent(converted.tensors, opened)
    shapes = architecture.shapes_of(
        converted, layout, weights, stated=opened.metadata, heads=wanted.heads
    )
    plan, module = _module(shapes)
    ledger = ledgers.fill(module, converted)
    found = building.architecture_name(plan, module)
    name = wanted.name or opened.metadata.get("name") or weightfiles.label(opened.path)
    spec = _spec(plan, layout, opened, architecture=found, name=name, notes=weights.notes)
    return spec, module, ledger, metadata.epoch(opened.content, opened.metadata)


def _module(shapes: architecture.Shapes) -> tuple[architecture.Plan, nn.Module]:
    try:
        plan = plans.plan(shapes)
        return plan, building.build(plan)
    except CheckpointError:
        raise
    except Exception as error:  # shapes that no release has; timm fails in any way on them
        raise PartialLoadError(
            f"the shapes of the tensors make no transformer ({type(error).__name__}: {error})",
            "the file was edited or is of an unknown layout: get it again",
        ) from error


def _spec(
    plan: architecture.Plan,
    layout: Format,
    opened: weightfiles.Opened,
    *,
    architecture: str,
    name: str,
    notes: tuple[str, ...],
) -> CheckpointSpec:
    stated = opened.metadata
    mean, std = layout.normalisation
    assumed = (*opened.notes, *notes, *plan.assumed, *plans.unusual_depth(plan))
    if "mean" not in stated or "std" not in stated:
        told = f"mean {mean}, std {std}: the custom of format {layout.name}, not in the file"
        assumed = (*assumed, told)
    return CheckpointSpec(
        name=name,
        architecture=architecture,
        model_args={key: value for key, value in plan.kwargs.items() if _is_plain(value)},
        format=layout.name,
        sha256=weightfiles.digest(opened.path),
        input_size=(plan.kwargs["in_chans"], *plan.size),
        mean=tuple(stated.get("mean", mean)),
        std=tuple(stated.get("std", std)),
        interpolation=stated.get("interpolation", "bicubic"),
        crop_pct=float(stated.get("crop_pct", 0.9)),
        objective=stated.get("objective", layout.objective),
        assumed=assumed,
    )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _check_extent(tensors: Mapping[str, Tensor], opened: weightfiles.Opened) -> None:
    """Refuse tensors that claim more elements than the whole file has bytes for."""
    size = opened.path.stat().st_size
    for name, tensor in tensors.items():
        if opened.container != "npz" and tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(
                f"{name} claims shape {list(tensor.shape)} in a file of {size} bytes",
                "do not trust this file; get it from its authors",
            )
