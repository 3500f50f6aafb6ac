"""From the calls that one attention module made in a pass to what it attended with."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from attnprobe.attention.families import variant_of
from attnprobe.attention.layers import Site
from attnprobe.attention.reader import Call, RawAttention
from attnprobe.errors import CaptureError


def read(site: Site, calls: Sequence[Call], inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    """Read the calls of one pass through an attention module.

    Args:
        site: The module and its reader.
        calls: The calls that the reader wanted to see, in order; at least one.
        inputs: The module's positional and keyword arguments.

    Raises:
        CaptureError: There are several calls that do not make one attention, or they cannot
            be read.
    """
    variant = variant_of(site.module)
    if variant is not None and variant.join is not None:
        return variant.join(site.module, calls)
    if len(calls) > 1:
        raise CaptureError(
            f"{site.name} attended more than once in one pass",
            "capture one forward pass at a time, without weight sharing between layers",
        )
    raw = site.reader.read(site.module, calls[0], inputs)
    return variant.arrange(site.module, raw) if variant and variant.arrange else raw


def in_order(model: nn.Module, site: Site, raw: RawAttention) -> RawAttention:
    """Bring the tokens of a class that has an order of its own to reading order."""
    variant = variant_of(site.module)
    return variant.order(model, site.module, raw) if variant and variant.order else raw


def own_in_order(model: nn.Module, module: nn.Module, own: Tensor, shape: Sequence[int]) -> Tensor:
    """Return what a softmax of a layer's own gave as what was captured of it is arranged.

    Args:
        model: The whole model.
        module: The attention module.
        own: The probabilities, with all heads and windows.
        shape: Captured images x windows, heads, queries and keys.
    """
    if own.ndim == 5 and own.shape[1] == shape[1]:  # heads before windows
        own = own.transpose(1, 2)
    own = own.reshape(*shape)
    variant = variant_of(module)
    if variant is None or variant.order is None:
        return own
    empty = own.new_zeros(1, 1, 1, 1)
    q, k = empty.expand(*shape[:3], 1), empty.expand(*shape[:2], shape[3], 1)
    ordered = variant.order(model, module, RawAttention(q, k, 0.0, own)).bias
    return own if ordered is None else ordered


def feature_of(site: Site, output: Any) -> Tensor:
    """Return the feature of a layer from what its block returned."""
    variant = variant_of(site.module)
    if variant is not None and variant.output is not None:
        return variant.output(site.block, site.module, output)
    return output if isinstance(output, Tensor) else output[0]
