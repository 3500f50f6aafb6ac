"""From a folder of images to a report: pre-train SimMIM, compare with untrained. Twenty seconds.

    python examples/pretrain_to_report.py --out walk

makes 64 small JPEGs of discs and bars, pre-trains a small ViT on them for a few updates with
`attnprobe pretrain`, and sets what came of it beside the untrained encoder with `attnprobe
compare`. The commands are printed as one would type them. So few updates change little: it is
the way that is shown, not a finding.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from attnprobe.cli import main as command

COUNT, SIDE = 64, 48  # images; px
MODEL = "vit_tiny_patch16_224"
SMALL = ("embed_dim=64", "depth=3", "num_heads=2")


def make_images(folder: Path) -> None:
    """Write JPEGs of one disc and one bar each, on a plain ground."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        ground, disc, bar = (tuple(row) for row in rng.integers(0, 256, (3, 3)).tolist())
        image = Image.new("RGB", (SIDE, SIDE), ground)
        draw = ImageDraw.Draw(image)
        x, y = rng.integers(4, SIDE - 20, 2).tolist()
        draw.ellipse((x, y, x + 16, y + 16), fill=disc)
        draw.line((*rng.integers(0, SIDE, 4).tolist(),), fill=bar, width=4)
        image.save(folder / f"{number:02}.jpg", quality=92)


def attnprobe(*words: str | Path) -> None:
    """Run a command in this process, as it would be typed."""
    typed = [str(word) for word in words]
    print("$ attnprobe", *typed, flush=True)
    try:
        command(typed)
    except SystemExit as ended:
        if ended.code:
            raise


def main() -> None:
    """Make images, pre-train, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("walk"))
    out = parser.parse_args().out
    photos, run = out / "images", out / "simmim"

    make_images(photos)
    backbone = [word for argument in SMALL for word in ("--model-arg", argument)]
    sizes = ("--img-size", "32", "--patch-size", "4", "--mask-patch", "8", "--batch-size", "16")
    pace = ("--epochs", "3", "--warmup-epochs", "1", "--lr", "1e-3", "--lr-batch", "16")
    watch = ("--probe-limit", "16", "--snapshot-every", "3", "--workers", "0")
    attnprobe("pretrain", "simmim", "-d", photos, "-m", MODEL, *backbone, *sizes, *pace, *watch,
              "-o", run)  # fmt: skip

    encoders = (run / "checkpoints" / "epoch-0000.safetensors", run / "checkpoint.safetensors")
    names = ("--name", "untrained", "--name", "SimMIM")
    attnprobe("compare", *encoders, "-i", photos, *names, "--workers", "0",
              "-o", out / "compare")  # fmt: skip
    print(f"open {out / 'compare' / 'report.html'} and {run / 'report.html'}")


if __name__ == "__main__":
    main()
