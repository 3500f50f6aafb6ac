"""The records of the format table: how a release is spelled, and what conversion yields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnprobe.formats.containers import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _nothing(_: Weights) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Format:
    """How one release spells its checkpoints.

    Attributes:
        name: Public name.
        description: One line for `attnprobe list formats`.
        family: timm family that holds the weights: a key of `checkpoints.building.plans.PLANNERS`.
        detect: Whether the names and shapes of an encoder are this format's.
        rank: Formats are asked in ascending rank; surer signs come first.
        objective: Training objective that the format implies, or unknown.
        rename: (pattern, replacement) from the release's names to timm's.
        drop: (pattern, reason) for tensors that are not part of the encoder.
        prepare: Conversion that needs values: tensors -> (tensors, {new name: old names}).
        customs: What the release's code fixes and no shape tells: heads, norm_eps, act, ...;
            what the file itself states goes before it.
        normalisation: Mean and standard deviation of the release's preprocessing.
        anchor: Pattern of one tensor's name inside the encoder; what stands before it is the
            prefix. Only for formats of one's own, where no known anchor is in the file.
        build: Makes the module itself, for architectures that timm lacks: (tensors by the
            module's names, what the file states) -> module. Its weights are then loaded.
    """

    name: str
    description: str
    family: str
    detect: Callable[[Weights], bool]
    rank: int = 50
    objective: str = "unknown"
    rename: tuple[tuple[str, str], ...] = ()
    drop: tuple[tuple[str, str], ...] = ()
    prepare: "Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, str]]] | None" = None
    customs: Callable[[Weights], Mapping[str, Any]] = _nothing
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    anchor: str = ""
    build: "Callable[[Mapping[str, Tensor], Mapping[str, Any]], nn.Module] | None" = None


@dataclass(frozen=True)
class Converted:
    """An encoder under timm's names.

    Attributes:
        tensors: Tensors by timm name.
        origin: File name (or names) by timm name.
        dropped: Reason by file name.
    """

    tensors: "dict[str, Tensor]"
    origin: dict[str, str]
    dropped: dict[str, str]
