"""Two saved runs compared, on a machine that need not have torch. A few seconds.

    attnprobe analyze simmim.pth -i photos/ -o runs/simmim
    attnprobe analyze deit.pth -i photos/ -o runs/deit
    python examples/compare_saved.py runs/simmim runs/deit --out simmim-deit

The images must be the same, by hash. Prints where attention distance differs, with paired
intervals over images and the false discovery rate over layers, and the verdicts on the paper's
claims; saves the comparison and writes its page.
"""

import argparse
from pathlib import Path

import attnprobe

DIFFERENCES = ["layer_a", "layer_b", "value_a", "value_b", "value", "low", "high", "q", "unit"]


def main() -> None:
    """Compare, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, type=Path, help="folders of saved runs")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    given = parser.parse_args()

    found = attnprobe.compare(given.runs)

    rows = found.tables["differences"].query(
        "metric == 'distance' and scale == 'value' and alignment == 'layer'"
    )
    print(rows[DIFFERENCES].to_string(index=False))
    print(found.tables["verdicts"][["statement", "verdict", "evidence"]].to_string(index=False))
    found.save(given.out)
    print(f"wrote {given.out} and {attnprobe.report(found, given.out.with_suffix('.html'))}")


if __name__ == "__main__":
    main()
