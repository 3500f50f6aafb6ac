"""The records of the format table: how a release is spelled, and what conversion yields."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnprobe.formats.containers import Weights

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Format:
    """How one release spells its checkpoints.

    Attributes:
        name: Public name.
        description: One line for `attnprobe list formats`.
        family: timm family that holds the weights: vit, beit, swin or swinv2.
        detect: Whether the names and shapes of an encoder are this format's.
        objective: Training objective that the format implies, or unknown.
        rename: (pattern, replacement) from the release's names to timm's.
        drop: (pattern, reason) for tensors that are not part of the encoder.
        prepare: Conversion that needs values: tensors -> (tensors, {new name: old names}).
        normalisation: Mean and standard deviation of the release's preprocessing.
    """

    name: str
    description: str
    family: str
    detect: Callable[[Weights], bool]
    objective: str = "unknown"
    rename: tuple[tuple[str, str], ...] = ()
    drop: tuple[tuple[str, str], ...] = ()
    prepare: "Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, str]]] | None" = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


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
