"""Pictures for a page: inside it, and small enough to be there."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from attnprobe.traininglog.pictures import MOST, spread

LARGEST = 600_000  # bytes of a picture that is taken as it is
WIDEST = 1400  # pixels of one that is drawn anew
SMALL = 640  # pixels; narrower pictures are enlarged
QUALITY = 85


@dataclass(frozen=True)
class Shown:
    """One picture of an album.

    Attributes:
        epoch: When it was drawn.
        source: The picture as a data URI.
        width: In pixels.
        height: In pixels.
        small: Whether it is to be enlarged, pixel by pixel.
    """

    epoch: int
    source: str
    width: int
    height: int
    small: bool


def album(pictures: Sequence[tuple[int, bytes]]) -> list[Shown]:
    """Return pictures to show, evenly chosen of many; large ones as JPEG, no wider than a page.

    Args:
        pictures: (epoch, PNG file), checked by `traininglog.pictures`.
    """
    chosen = spread(list(range(len(pictures))), MOST)
    return [_shown(*pictures[at]) for at in chosen]


def _shown(epoch: int, data: bytes) -> Shown:
    kind = "png"
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if len(data) > LARGEST:
            kind, file = "jpeg", io.BytesIO()
            smaller = image.convert("RGB")
            smaller.thumbnail((WIDEST, 4 * WIDEST))
            smaller.save(file, "JPEG", quality=QUALITY)
            data, size = file.getvalue(), smaller.size
        else:
            size = image.size
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Shown(epoch, source, *size, small=size[0] < SMALL)
