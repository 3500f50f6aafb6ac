"""The drawn numbers of every plot; run this file to write the golden ones anew."""

import json
import tempfile
from pathlib import Path

import pandas as pd
from synthetic import synthetic_result
from synthetic_training import write_run

from attnprobe import plugins
from attnprobe.study import Run, Study, Summary
from attnprobe.traininglog import load

GOLDEN = Path(__file__).parent / "golden" / "plots.json"
TRAINING = ("training_loss", "training_rate", "training_scores")
STUDY = ("study_drops", "study_emergence")
MEASURED = ("cka", "distance", "entropy", "head_kl", "head_kl_pairs", "prefix_mass")
NAMES = (*MEASURED, *TRAINING, *STUDY)


def outline(name):
    """Traces of a plot of one small subject: names and positions, not looks."""
    figure = plugins.load("attnprobe.plots", name, "PLOT").draw(subject(name))
    traces = json.loads(figure.to_json())["data"]
    return [{key: trace.get(key) for key in ("name", "x", "y", "z")} for trace in traces]


def subject(name):
    if name in TRAINING:
        return training()
    return study() if name in STUDY else [synthetic_result(layers=2, heads=2, images=3)]


def study():
    """Two methods of two seeds, fine-tuned with and without two blocks, probed twice."""
    drops = [
        ("simmim", 0, 0.8, 0.7, 0.9, "0.79, 0.81"),
        ("simmim", 2, 0.7, float("nan"), float("nan"), "0.7"),
        ("supervised", 0, 0.6, 0.55, 0.65, "0.58, 0.62"),
        ("supervised", 2, 0.5, 0.4, 0.6, "0.45, 0.55"),
    ]
    columns = ["method", "dropped", "value", "low", "high", "by_seed"]
    emergence = [
        (method, 0, step, epoch, metric, value + 0.1 * epoch, "of uniform")
        for metric, value in (("distance", 0.9), ("entropy", 0.8))
        for method in ("simmim", "supervised")
        for step, epoch in ((0, 0.0), (10, 1.5))
    ]
    told = ["method", "seed", "step", "epoch", "metric", "value", "unit"]
    tables = {
        "drops": pd.DataFrame(drops, columns=columns).assign(seeds=2),
        "emergence": pd.DataFrame(emergence, columns=told),
    }
    runs = tuple(Run(method, 0, 3) for method in ("simmim", "supervised"))
    return Summary(Study(Path("nowhere"), {}, runs, pd.DataFrame()), tables)


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
