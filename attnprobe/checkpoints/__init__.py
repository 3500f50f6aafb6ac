"""Any checkpoint file, catalogue name or timm name to a verified module with its ledger.

source -> file -> container -> encoder's tensors -> timm's names -> plan from shapes -> module,
and every tensor accounted for: a layer is either loaded from the file or the load fails by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from attnprobe import catalogue, extensions
from attnprobe.attention import Reader
from attnprobe.attention.given import Given
from attnprobe.checkpoints import loading, masked, request
from attnprobe.checkpoints.building import resizing
from attnprobe.checkpoints.masked import Masked
from attnprobe.checkpoints.origins import hub, sources
from attnprobe.checkpoints.request import LoadOptions
from attnprobe.formats import Format
from attnprobe.metrics import Metric
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
        readers: The user's own attention readers for it.
        metrics: The user's own metrics, to be asked for by name.
        grid: Where its tokens lie, as the user states it (see `capture`), or None.
        masked: How its images were masked in pre-training, where the file tells.
    """

    spec: CheckpointSpec
    module: nn.Module
    ledger: LoadLedger
    epoch: float | None = None
    readers: tuple[Reader, ...] = ()
    metrics: tuple[Metric, ...] = ()
    grid: Given | None = None
    masked: Masked | None = None


def load(source: str | Path, **options: Any) -> LoadedModel:
    """Load a checkpoint file, folder, catalogue name, `timm:NAME` or `hf:OWNER/REPO`.

    Args:
        source: What to load; `timm:NAME?pretrained=0` gives untrained weights.
        **options: Fields of `LoadOptions`: heads, name, trust, part, arch, img_size, window,
            plugins.

    Raises:
        CheckpointError: The file cannot be read, is no vision transformer, or is incomplete.

    >>> load("timm:vit_tiny_patch16_224?pretrained=0").spec.format
    'timm-random'
    """
    wanted = request.options(**options)
    own = extensions.load(wanted.plugins)
    loaded = _load(source, wanted, own.formats)
    spec, ledger = resizing.resize(loaded.spec, loaded.module, loaded.ledger, wanted)
    spec = replace(spec, asked=wanted.asked | own.identity)
    loaded = replace(loaded, readers=own.readers, metrics=own.metrics)
    return replace(loaded, spec=spec, ledger=ledger)


def _load(source: str | Path, wanted: LoadOptions, own: Sequence[Format]) -> LoadedModel:
    located = sources.resolve(source)
    wanted = replace(wanted, name=wanted.name or located.name or None)
    if located.path is None:
        how = masked.of_timm(located.timm)
        found = LoadedModel(*hub.load(located.timm, name=wanted.name), masked=how)
    else:
        spec, module, ledger, epoch, how = loading.load_file(located.path, wanted, own)
        sources.check(located, spec.sha256)
        found = LoadedModel(replace(spec, source=located.label), module, ledger, epoch, masked=how)
    if located.record is None:
        return found
    return replace(found, spec=catalogue.complete(found.spec, located.record))
