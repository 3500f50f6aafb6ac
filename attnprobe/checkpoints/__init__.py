"""Any checkpoint file, catalogue name or timm name to a verified module with its ledger.

file -> container -> encoder's tensors -> timm's names -> plan from shapes -> module, and every
tensor accounted for: a layer is either loaded from the file or the load fails by name.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attnprobe import catalogue
from attnprobe.checkpoints import architecture, building, hub, ledgers, metadata, plans, weightfiles
from attnprobe.errors import CheckpointError, PartialLoadError
from attnprobe.formats import Format, convert, identify, unwrap
from attnprobe.types import CheckpointSpec, LoadLedger


@dataclass(frozen=True)
class LoadedModel:
    """A module whose every weight came from its checkpoint.

    Attributes:
        spec: What the checkpoint is and the preprocessing it expects.
        module: The timm module: eval mode, no gradients, fp32. Its weights may lie in a
            memory map of the file, so do not overwrite the file in place while it is used.
        ledger: What became of every tensor of the file.
        epoch: The epoch that the file says it was saved after, if it says one.
    """

    spec: CheckpointSpec
    module: nn.Module
    ledger: LoadLedger
    epoch: float | None = None


def load(
    source: str | Path,
    *,
    heads: int | None = None,
    name: str | None = None,
    trust: bool = False,
) -> LoadedModel:
    """Load a checkpoint file, folder, catalogue name or `timm:NAME`.

    Args:
        source: What to load; `timm:NAME?pretrained=0` gives untrained weights.
        heads: Head count, where neither names nor shapes tell it.
        name: Label for tables and plots.
        trust: Let pickled code in the file run.

    Raises:
        CheckpointError: The file cannot be read, is no vision transformer, or is incomplete.

    >>> load("timm:vit_tiny_patch16_224?pretrained=0").spec.format
    'timm-random'
    """
    if str(source).startswith(hub.SCHEME):
        return LoadedModel(*hub.load(str(source), name=name))
    there = os.path.exists(source)  # noqa: PTH110 - unlike pathlib's it never raises
    record = None if there else catalogue.catalogue().get(str(source))
    if record is None:
        return _load_file(weightfiles.locate(source), str(source), heads, name, trust=trust)
    return _load_record(record, heads, name, trust=trust)


def _load_record(
    record: catalogue.CheckpointRecord, heads: int | None, name: str | None, *, trust: bool
) -> LoadedModel:
    if record.source.startswith(hub.SCHEME):
        spec, module, ledger = hub.load(record.source, name=name or record.name)
        return LoadedModel(catalogue.complete(spec, record), module, ledger)
    path = catalogue.local_file(record)
    found = _load_file(path, record.name, heads, name or record.name, trust=trust)
    return replace(found, spec=catalogue.complete(found.spec, record))


def _load_file(
    path: Path, source: str, heads: int | None, name: str | None, *, trust: bool
) -> LoadedModel:
    try:
        return _from_file(path, source, heads, name, trust=trust)
    except CheckpointError as error:
        if path.name in error.cause:
            raise
        raise type(error)(f"{path}: {error.cause}", error.remedy) from error


def _from_file(
    path: Path, source: str, heads: int | None, name: str | None, *, trust: bool
) -> LoadedModel:
    opened = weightfiles.read(path, trust=trust)
    weights = unwrap(opened.content)
    layout = identify(weights)
    converted = convert(weights, layout)
    _check_extent(converted.tensors, opened)
    shapes = architecture.shapes_of(converted, layout, weights, stated=opened.metadata, heads=heads)
    plan, module = _module(shapes)
    ledger = ledgers.fill(module, converted)
    found = building.architecture_name(plan, module)
    spec = _spec(plan, layout, opened, architecture=found, notes=weights.notes)
    own_name = name or opened.metadata.get("name") or weightfiles.label(path)
    epoch = metadata.epoch(opened.content, opened.metadata)
    return LoadedModel(replace(spec, name=own_name, source=source), module, ledger, epoch)


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
    notes: tuple[str, ...],
) -> CheckpointSpec:
    stated = opened.metadata
    mean, std = layout.normalisation
    assumed = (*opened.notes, *notes, *plan.assumed, *plans.unusual_depth(plan))
    if "mean" not in stated or "std" not in stated:
        told = f"mean {mean}, std {std}: the custom of format {layout.name}, not in the file"
        assumed = (*assumed, told)
    return CheckpointSpec(
        name="",
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
