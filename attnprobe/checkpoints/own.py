"""Files that only a format of the user's own can find its way in, by its anchor."""

import re
from collections.abc import Sequence

from attnprobe.checkpoints.weightfiles import Opened
from attnprobe.formats import Format, Weights
from attnprobe.formats.containers import named_tensors


def find(
    opened: Opened, part: str | None, formats: Sequence[Format]
) -> tuple[Weights, Format] | None:
    """Return the encoder and the format whose anchor and signs it shows, or nothing.

    Args:
        opened: The file.
        part: Which encoder, of files that hold several.
        formats: The user's own formats; those without an anchor are passed over.

    Raises:
        FormatError: The file holds no tensors.
    """
    anchored = [layout for layout in formats if layout.anchor]
    if not anchored:
        return None
    flat, beside, notes = named_tensors(opened.content, part)
    for layout in anchored:
        pattern = re.compile(rf"^((?:.*\.)?){layout.anchor}")
        prefix = next((match[1] for name in flat if (match := pattern.match(name))), None)
        if prefix is None:
            continue
        inner = {name[len(prefix) :]: x for name, x in flat.items() if name.startswith(prefix)}
        outside = {
            name: f"outside the encoder ({prefix!r})"
            for name in flat
            if not name.startswith(prefix)
        }
        weights = Weights(
            inner, prefix, outside, frozenset(flat), beside, notes, config=opened.config
        )
        if layout.detect(weights):
            return weights, layout
    return None
