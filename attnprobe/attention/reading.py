"""From the calls that one attention module made in a pass to what it attended with."""

from collections.abc import Sequence
from typing import Any

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
