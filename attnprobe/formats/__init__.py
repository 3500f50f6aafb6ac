"""How each release spells its names: pure state dict -> state dict.

A format says by which names it is recognised, which names differ from timm's, and which
tensors are not part of the encoder. Each file in `releases` exports `FORMATS`; the first one
that matches, in order of rank, is taken.
"""

from collections.abc import Sequence
from functools import cache

from attnprobe import plugins
from attnprobe.errors import FormatError
from attnprobe.formats.containers import Weights, unwrap
from attnprobe.formats.conversion import convert
from attnprobe.formats.records import Converted, Format

__all__ = ["Converted", "Format", "Weights", "convert", "formats", "identify", "unwrap"]

_RELEASES = "attnprobe.formats.releases"


@cache
def formats() -> tuple[Format, ...]:
    """Return every known format in the order in which they are asked.

    >>> formats()[-1].name
    'timm'
    """
    found = [item for name in plugins.names(_RELEASES) for item in _of(name)]
    return tuple(sorted(found, key=lambda item: (item.rank, item.name)))


def _of(name: str) -> tuple[Format, ...]:
    return plugins.load(_RELEASES, name, "FORMATS")


def identify(weights: Weights, extra: Sequence[Format] = ()) -> Format:
    """Return the first format whose signs the encoder shows.

    Args:
        weights: The encoder.
        extra: The user's own formats, which are asked first.

    Raises:
        FormatError: None of them matches.
    """
    for candidate in (*extra, *formats()):
        if candidate.detect(weights):
            return candidate
    some = ", ".join(list(weights.tensors)[:8])
    if not any("attn" in name or "attention" in name for name in weights.tensors):
        raise FormatError(
            f"no attention in this checkpoint: its blocks hold {some}, ...",
            "attnprobe measures attention heads: give a vision transformer",
        )
    raise FormatError(
        f"no known format explains the names {some}, ...",
        "run `attnprobe inspect` on it for the nearest format, or name its model with --arch",
    )
