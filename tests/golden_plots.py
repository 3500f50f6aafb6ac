"""The drawn numbers of every plot; run this file to write the golden ones anew."""

import json
import tempfile
from pathlib import Path

from synthetic import synthetic_result
from synthetic_training import write_run

from attnprobe import plugins
from attnprobe.traininglog import load

GOLDEN = Path(__file__).parent / "golden" / "plots.json"
TRAINING = ("training_loss", "training_rate", "training_scores")
NAMES = ("cka", "distance", "entropy", "head_kl", "head_kl_pairs", "prefix_mass", *TRAINING)


def outline(name):
    """Traces of a plot of one small subject: names and positions, not looks."""
    subject = training() if name in TRAINING else [synthetic_result(layers=2, heads=2, images=3)]
    figure = plugins.load("attnprobe.plots", name, "PLOT").draw(subject)
    traces = json.loads(figure.to_json())["data"]
    return [{key: trace.get(key) for key in ("name", "x", "y", "z")} for trace in traces]


def training():
    """A training run of a few logged values, as it is read from its folder."""
    with tempfile.TemporaryDirectory() as folder:
        return load(write_run(Path(folder) / "run", step=80, probed=(), epochs=()))


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
