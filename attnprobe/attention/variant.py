"""What is known of one attention class, beyond the torch calls that it makes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attnprobe.attention.reader import Call, RawAttention
from attnprobe.types import TokenGrid


@dataclass(frozen=True)
class At:
    """One attention module in a pass.

    Attributes:
        name: Its qualified name.
        model: The whole model.
        module: The attention module.
        parent: The module around it.
        image: Height and width of the input in pixels.
        windows: Windows of one image; 1 for global attention.
        queries: Queries of one window.
        keys: Keys of one window.
    """

    name: str
    model: nn.Module
    module: Any
    parent: Any
    image: tuple[int, int]
    windows: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Variant:
    """One attention class. A class without a record is global attention over a stated stride.

    Attributes:
        kind: Its file and name, as `kind_of` gives them.
        place: Where its tokens lie; None where they have no place on the image. It raises
            GeometryError where they have one that is not known.
        arrange: `arrange(module, raw)` brings what was read to the axes of `RawAttention`, and
            its tokens to reading order.
        order: `order(model, module, raw)` brings tokens to reading order after that, where
            only the whole model says what their order is.
        join: `join(module, calls)` makes one attention of all watched calls, of a class that
            makes several in one pass (heads one after another, say).
        output: `output(block, module, output)` returns the layer's feature, of a class whose
            block returns several things and not the feature first.
        left_out: Why it is no layer, of a model that attends over patches elsewhere.
        refused: Why a model that has it cannot be measured.
    """

    kind: str
    place: Callable[[At], TokenGrid | None] | None = None
    arrange: Callable[[nn.Module, RawAttention], RawAttention] | None = None
    order: Callable[[nn.Module, nn.Module, RawAttention], RawAttention] | None = None
    join: Callable[[nn.Module, Sequence[Call]], RawAttention] | None = None
    output: Callable[[nn.Module, nn.Module, Any], Tensor] | None = None
    left_out: str = ""
    refused: str = ""
