"""Two lines: the checkpoint in the box, measured on the images in the box. Ten seconds.

    python examples/two_lines.py --out two-lines

writes a run folder and the page `two-lines.html`, and prints how far the heads of each layer
look, as a part of what uniform attention would give. Any checkpoint and any folder of images
can stand in the two lines.
"""

import argparse
from pathlib import Path

import attnprobe


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("two-lines"))
    out = parser.parse_args().out

    model = attnprobe.load("vit_tiny_cifar10_supervised")
    result = attnprobe.analyze(model, "bundled", limit=48)

    layers = result.tables["layer_means"]
    distance = layers[layers["metric"] == "distance"]
    print(distance[["layer", "value", "low", "high", "unit", "fraction"]].to_string(index=False))
    result.save(out)
    print(f"wrote {out} and {attnprobe.report([result], out.with_suffix('.html'))}")


if __name__ == "__main__":
    main()
