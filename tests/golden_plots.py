"""The drawn numbers of every plot; run this file to write the golden ones anew."""

import json
from pathlib import Path

from synthetic import synthetic_result

from attnprobe import plugins

GOLDEN = Path(__file__).parent / "golden" / "plots.json"
NAMES = ("cka", "distance", "entropy", "head_kl", "head_kl_pairs", "prefix_mass")


def outline(name):
    """Traces of a plot of one small result: names and positions, not looks."""
    figure = plugins.load("attnprobe.plots", name, "PLOT").draw(
        [synthetic_result(layers=2, heads=2, images=3)]
    )
    traces = json.loads(figure.to_json())["data"]
    return [{key: trace.get(key) for key in ("name", "x", "y", "z")} for trace in traces]


def rounded(value):
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write():
    figures = [
        f'"{name}": [\n'
        + ",\n".join(json.dumps({k: rounded(v) for k, v in t.items()}) for t in outline(name))
        + "\n]"
        for name in NAMES
    ]
    GOLDEN.write_text("{\n" + ",\n".join(figures) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
