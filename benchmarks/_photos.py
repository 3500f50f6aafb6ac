"""A folder of JPEGs of usual sizes, cut from the photographs in the box."""

from pathlib import Path

import numpy as np
from PIL import Image

BOX = Path(__file__).resolve().parent.parent / "examples" / "images"
SIDES = (224, 400)  # px, shortest and longest
QUALITY = 90


def photographs(folder: Path, count: int) -> Path:
    """Write seeded random crops, enlarged to between 224 and 400 px a side; return the folder."""
    rng = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in sorted(BOX.glob("*.jpg"))]
    folder.mkdir(parents=True)
    for index in range(count):
        source = sources[index % len(sources)]
        share = rng.uniform(0.6, 1.0)
        wide, high = (int(share * side) for side in source.size)
        left = int(rng.integers(source.width - wide + 1))
        top = int(rng.integers(source.height - high + 1))
        size = rng.integers(SIDES[0], SIDES[1] + 1, 2).tolist()
        crop = source.resize(tuple(size), box=(left, top, left + wide, top + high))
        crop.save(folder / f"{index:05d}.jpg", quality=QUALITY)
    return folder
