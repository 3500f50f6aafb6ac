"""Cut the sample images out of free photographs, and write who made them.

    apt-get download lomiri-wallpapers-16.04 && dpkg-deb -x lomiri-wallpapers-16.04_*.deb sources
    pip download --no-deps scikit-image==0.26.0 && unzip scikit_image-*.whl -d sources
    python examples/make_images.py sources examples/images

Each photograph gives square crops at several scales. They do not overlap, and hold as much
structure as possible: the mean local contrast, at the size of the crop, is the largest.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

SIDE, QUALITY = 256, 92  # px of a crop; JPEG quality
BLOCK, BLOCKS = 8, 16  # local contrast is measured in 16 x 16 blocks of 8 px
STEP = 4  # blocks between neighbouring places
ENOUGH = 24.0  # grey levels of contrast that count as structure; more counts no more
SCALES = (0.6, 0.42, 0.3, 0.22)  # sides of the crops, as shares of the short side

DEBIAN = "usr/share/backgrounds"
SKIMAGE = "skimage/data"
PACKAGES = {
    DEBIAN: "lomiri-wallpapers-16.04 20.04.0-2 (Debian)",
    SKIMAGE: "scikit-image 0.26.0 (PyPI)",
}
LICENCES = {
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}


class Photograph(NamedTuple):
    """One source: the name of its crops, its file, and whose it is."""

    name: str
    folder: str
    file: str
    author: str
    licence: str
    scales: tuple[float, ...] = SCALES


PHOTOGRAPHS = (
    Photograph(
        "aitzgorri", DEBIAN, "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"
    ),
    Photograph("astronaut", SKIMAGE, "astronaut.png", "NASA", "public domain", (0.5,) * 3),
    Photograph("brick", SKIMAGE, "brick.png", "CC0Textures", "CC0-1.0", (1.0,)),
    Photograph(
        "bridge",
        DEBIAN,
        "Bridge_by_Sander_Klootwijk.jpg",
        "Sander Klootwijk",
        "CC-BY-SA-4.0",
        (0.6, 0.3),
    ),
    Photograph("brushes", DEBIAN, "Picture_1A_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photograph("camera", SKIMAGE, "camera.png", "Lav Varshney", "CC0-1.0", (0.5,) * 3),
    Photograph("cat", SKIMAGE, "chelsea.png", "Stefan van der Walt", "CC0-1.0", (1.0,)),
    Photograph(
        "clock",
        DEBIAN,
        "greentock_by_Peter_Nerlich.jpg",
        "Peter Nerlich",
        "CC-BY-SA-4.0",
        (0.6, 0.42),
    ),
    Photograph("coffee", SKIMAGE, "coffee.png", "Rachel Michetti", "CC0-1.0", (0.75, 0.75)),
    Photograph(
        "dandelion",
        DEBIAN,
        "seeding_by_Clements_Engelhardt.jpg",
        "Clemens Engelhardt",
        "CC0-1.0",
        (0.6, 0.42, 0.3),
    ),
    Photograph(
        "dogs", DEBIAN, "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"
    ),
    Photograph("dragonfly", DEBIAN, "Dragonfly_by_Bolly.jpg", '"Bolly"', "CC-BY-SA-4.0"),
    Photograph("drum", DEBIAN, "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0"),
    Photograph("fig", DEBIAN, "Picture_0B_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photograph(
        "galaxies",
        SKIMAGE,
        "hubble_deep_field.jpg",
        "NASA, ESA (Hubble)",
        "public domain",
        (0.5, 0.35, 0.35),
    ),
    Photograph("grass", SKIMAGE, "grass.png", "linolafett", "CC0-1.0", (1.0,)),
    Photograph("gravel", SKIMAGE, "gravel.png", "CC0Textures", "CC0-1.0", (1.0,)),
    Photograph(
        "lamp", DEBIAN, "free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0", (0.6,)
    ),
    Photograph(
        "mountains",
        DEBIAN,
        "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "Aitzol Berasategi",
        "CC-BY-4.0",
        (0.6, 0.4, 0.3, 0.3, 0.22),
    ),
    Photograph("retina", SKIMAGE, "retina.jpg", "Mikael Häggström", "CC0-1.0", (0.6,)),
    Photograph("rocket", SKIMAGE, "rocket.jpg", "SpaceX", "public domain", (1.0,)),
    Photograph(
        "stream",
        DEBIAN,
        "life_by_Aitzol_Berasategi.jpg",
        "Aitzol Berasategi",
        "CC-BY-4.0",
        (0.6, 0.4, 0.3, 0.3, 0.22, 0.22, 0.22),
    ),
    Photograph(
        "sunset",
        DEBIAN,
        "sunset_by_Aitzol_Berasategi.jpg",
        "Aitzol Berasategi",
        "CC-BY-4.0",
        (0.6, 0.42, 0.3),
    ),
)

Box = tuple[int, int, int, int]  # left, top, right, bottom in px of the photograph


def contrast(grey: Image.Image, side: int) -> np.ndarray:
    """Capped standard deviation of every block, at the scale where `side` is one crop."""
    scale = BLOCK * BLOCKS / side
    cols, rows = (int(length * scale) // BLOCK for length in grey.size)
    small = grey.resize((cols * BLOCK, rows * BLOCK), Image.Resampling.BOX, reducing_gap=3)
    blocks = np.asarray(small, dtype=np.float64).reshape(rows, BLOCK, cols, BLOCK)
    return np.minimum(blocks.std(axis=(1, 3)), ENOUGH)


def places(grey: Image.Image, side: int) -> list[Box]:
    """All boxes of one size on a lattice of quarter crops, the most structured first."""
    blocks = contrast(grey, side)
    windows = np.lib.stride_tricks.sliding_window_view(blocks, (BLOCKS, BLOCKS))[::STEP, ::STEP]
    score = windows.mean(axis=(2, 3))
    step = np.array(grey.size[::-1]) / blocks.shape  # px of a block, rows and columns
    order = np.argsort(-score, axis=None, kind="stable")
    corners = np.stack(np.unravel_index(order, score.shape), axis=1) * STEP * step
    limit = np.array(grey.size[::-1]) - side
    top_left = np.minimum(corners.round().astype(int), limit)
    return [(left, top, left + side, top + side) for top, left in top_left.tolist()]


def apart(a: Box, b: Box) -> bool:
    """Whether two boxes share no pixel."""
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def choose(options: list[list[Box]], taken: tuple[Box, ...] = ()) -> tuple[Box, ...]:
    """One box of each list, early ones preferred, none touching another; empty if none fit."""
    if not options:
        return taken
    for box in options[0]:
        if all(apart(box, other) for other in taken):
            chosen = choose(options[1:], (*taken, box))
            if chosen:
                return chosen
    return ()


def cut(photograph: Photograph, sources: Path, out: Path) -> list[str]:
    """Write the crops of one photograph; returns their rows of the attribution table."""
    with Image.open(sources / photograph.folder / photograph.file) as held:
        image = ImageOps.exif_transpose(held).convert("RGB")
    sides = [max(SIDE, round(min(image.size) * scale)) for scale in photograph.scales]
    options, rows = [places(image.convert("L"), side) for side in sides], []
    for number, box in enumerate(choose(options), start=1):
        name = f"{photograph.name}_{number}.jpg"
        crop = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box, reducing_gap=3)
        crop.save(out / name, quality=QUALITY, optimize=True)
        where, package = ", ".join(map(str, box)), PACKAGES[photograph.folder]
        cells = (name, photograph.file, photograph.author, photograph.licence, package, where)
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def attribution(rows: list[str]) -> str:
    """The text of ATTRIBUTION.md."""
    licences = "\n".join(f"- {name}: <{address}>" for name, address in LICENCES.items())
    return f"""# Sample images

{len(rows)} crops of {len(PHOTOGRAPHS)} photographs, made by `examples/make_images.py`: cropped,
scaled to {SIDE} x {SIDE} px and saved as JPEG (quality {QUALITY}); nothing else was changed.
Each crop has the licence of its photograph, which is not the licence of attnprobe's code:

{licences}

Authors and licences are those stated in the copyright file of the Debian package and in the
documentation of `skimage.data`. The box is left, top, right, bottom in px of the upright
photograph.

| file | photograph | author | licence | package | box |
|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def main() -> None:
    """Cut everything and write the attribution."""
    parser = argparse.ArgumentParser(description="Cut the sample images out of photographs.")
    parser.add_argument("sources", type=Path, help="where both packages were unpacked")
    parser.add_argument("out", type=Path, help="folder for the crops")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [row for item in PHOTOGRAPHS for row in cut(item, options.sources, options.out)]
    (options.out / "ATTRIBUTION.md").write_text(attribution(rows), encoding="utf-8")
    print(f"{len(rows)} crops of {len(PHOTOGRAPHS)} photographs in {options.out}")


if __name__ == "__main__":
    main()
