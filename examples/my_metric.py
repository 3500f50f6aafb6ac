"""A metric of one's own, from the definition to the table with intervals. Ten seconds.

    attnprobe analyze mine.pth --plugin examples/my_metric.py -m reach,entropy
    python examples/my_metric.py --out reach

The metric counts the patches that carry 90 % of a query's attention: 1 for a query that looks
at one patch, 58 of 64 patches for uniform attention. `measure` gets the probabilities of the
patch queries of one layer and returns one value an image and head; tables, intervals over
images, per-image values and the page's table follow.
"""

import argparse
from pathlib import Path

from torch import Tensor

import attnprobe
from attnprobe.metrics import Metric

SHARE = 0.9
ROUNDING = 1e-9  # sums of ten times 0.1 do not reach 1.0


def reach(weights: Tensor) -> Tensor:
    """Count the largest weights of each row that together carry SHARE of it.

    Args:
        weights: Probabilities, float64 [images, windows, heads, queries, keys].

    Returns:
        Mean over windows and queries, [images, heads].
    """
    before = weights.sort(descending=True).values.cumsum(-1)
    counts = 1 + (before < SHARE - ROUNDING).sum(-1)  # [images, windows, heads, queries]
    return counts.double().mean((1, 3))


METRIC = Metric(
    name="reach",
    title="patches that carry 90 % of attention",
    axes=("layer", "head"),
    needs="weights",
    version=1,
    unit=lambda options: "patches",
    definition=lambda options: (
        f"fewest keys with {SHARE:g} of a patch query's attention, prefix {options.prefix}, v1"
    ),
    measure=lambda weights, layer, options: reach(weights),
)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reach"))
    out = parser.parse_args().out

    model = attnprobe.load("vit_tiny_cifar10_supervised", plugins=[__file__])
    result = attnprobe.analyze(model, "bundled", metrics=["reach", "entropy"], limit=32)

    layers = result.tables["layer_means"]
    print(layers[["metric", "layer", "value", "low", "high", "unit"]].to_string(index=False))
    result.save(out)
    print(f"wrote {out} and {attnprobe.report([result], out.with_suffix('.html'))}")


if __name__ == "__main__":
    main()
