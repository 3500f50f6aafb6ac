"""A metric of the user's own, from a Python file: measured like any other, refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import attnprobe
from attnprobe import extensions, metrics
from attnprobe.errors import AttnprobeError
from attnprobe.measuring import Measurement
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "my_metric.py"
OWN = """
import torch
from attnprobe.metrics import Metric

def record(**changes):
    usual = dict(
        name="peak", title="largest weight", axes=("layer", "head"), needs="weights", version=1,
        unit=lambda options: "fraction", definition=lambda options: "largest weight, v1",
        measure=lambda weights, layer, options: weights.amax(-1).mean((1, 3)),
    )
    return Metric(**{{**usual, **changes}})

{exports}
"""


@pytest.fixture
def plugin(tmp_path):
    """Write a file that exports what the text says."""

    def written(exports, name="own.py"):
        path = tmp_path / name
        path.write_text(OWN.format(exports=exports))
        return path

    return written


def one(exports, plugin):
    (found,) = extensions.load([plugin(exports)]).metrics
    return found


def test_the_example_counts_the_patches_that_carry_most():
    (reach,) = extensions.load([EXAMPLE]).metrics
    rows = torch.zeros(1, 1, 2, 3, 10, dtype=torch.float64)
    rows[:, :, 0, :, 4] = 1.0  # one patch
    rows[:, :, 1] = 0.1  # nine of ten
    layer = LayerInfo(0, "layer", 2, 4, TokenGrid(2, 5, (8, 8)))
    assert reach.measure(rows, layer, MetricOptions()).tolist() == [[1.0, 9.0]]
    rows[:, :, 1, :, :3] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    rows[:, :, 1, :, 3:] = 0.0
    assert reach.measure(rows, layer, MetricOptions()).tolist() == [[1.0, 3.0]]


def test_it_is_measured_beside_the_others_as_by_hand(checkpoint, plugin):
    path = plugin("METRIC = record()")
    model = attnprobe.load(checkpoint, plugins=[path])
    images = torch.rand(9, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    result = attnprobe.analyze(model, images, metrics=["peak", "entropy"], batch_size=4)
    with torch.no_grad(), attnprobe.capture(model.module) as taps:
        model.module(images)
    tap = taps.attention[1]
    scores = tap.q.double() @ tap.k.double().mT * tap.scale
    rows = scores.softmax(-1)[:, :, 1:, 1:]
    rows = rows / rows.sum(-1, keepdim=True)
    expected = rows.amax(-1).mean(2)  # [images, heads]
    table = result.tables["peak"].query("layer == 1")
    assert table["value"].to_numpy() == pytest.approx(expected.mean(0).numpy(), rel=1e-5)
    assert table["low"].notna().all()
    assert result.tables["layer_means"]["metric"].unique().tolist() == ["peak", "entropy"]
    samples = (
        result.samples["peak"]
        .query("layer == 1")
        .pivot_table(index="image", columns="head", values="value")
    )
    assert samples.to_numpy() == pytest.approx(expected.numpy(), rel=1e-5)
    assert result.model["asked"]["plugins"] == list(extensions.load([path]).sha256)


def test_by_kernel_statistics_and_by_features(plugin):
    both = one(
        "METRIC = record(needs='stats', want=frozenset({'entropy'}), "
        "measure=lambda stats, layer, options: stats.entropy.exp())",
        plugin,
    )
    measured = Measurement.start(("peak", "distance"), MetricOptions(), "auto", [both])
    assert measured.want == {"entropy", "distance"}
    of_features = one(
        "from attnprobe import metrics\n"
        "METRIC = record(needs='features', measure=None, axes=('layer_a', 'layer_b'), "
        "features=metrics.load('cka').features, statistic=metrics.load('cka').statistic)",
        plugin,
    )
    assert of_features.features is metrics.load("cka").features


def test_the_command_measures_what_is_named(command, checkpoint, photos, plugin, tmp_path):
    path, out = plugin("METRIC = record()"), tmp_path / "run"
    given = ("analyze", checkpoint, "-i", photos, "-m", "peak", "--resamples", "100", "-o", out)
    printed = command(*given, "--plugin", path, "--json")
    rows = json.loads(printed.out)["layer_means"]
    assert [row["metric"] for row in rows] == ["peak", "peak"]
    assert all(0 < row["value"] < 1 for row in rows)
    assert "peak" in (out / "report.html").read_text()
    command("report", out, "--out", tmp_path / "again.html")
    refused = command("analyze", checkpoint, "--config", out / "config.toml",
                      "-o", tmp_path / "b", status=1)  # fmt: skip
    assert "unknown metric 'peak'" in refused.err
    misspelt = command("analyze", checkpoint, "-i", photos, "-m", "peek", "--plugin", path,
                       "-o", tmp_path / "c", status=1)  # fmt: skip
    assert "unknown metric 'peek'" in misspelt.err
    assert "prefix_mass, peak" in misspelt.err


def test_an_interrupted_run_does_not_go_on_with_other_code(checkpoint, photos, plugin, tmp_path):
    from attnprobe.analysis import analyze_together
    from attnprobe.processes import World
    from attnprobe.settings import AnalysisConfig

    config = AnalysisConfig(metrics=("peak",), batch_size=4, resamples=100)

    def measure(path, resume, progress=None):
        model = attnprobe.load(checkpoint, plugins=[path])
        state = tmp_path / "state"
        return analyze_together(model, str(photos), World(), config=config, state=state,
                                resume=resume, progress=progress)  # fmt: skip

    def stop(done, total):
        raise KeyboardInterrupt

    path = plugin("METRIC = record()")
    with pytest.raises(KeyboardInterrupt):
        measure(path, False, stop)
    with pytest.raises(AttnprobeError, match="is of other asked"):
        measure(plugin("METRIC = record()  # changed", "other.py"), True)
    assert measure(path, True).provenance.images == 9


def test_a_comparison_measures_again_what_other_code_measured(command, photos, plugin, tmp_path):
    path, out = plugin("METRIC = record()"), tmp_path / "pair"
    words = ("compare", "timm:test_vit?pretrained=0", "timm:test_vit2?pretrained=0", "-i", photos)
    kept = ("-m", "peak,entropy", "--plugin", path, "--resamples", "100", "-o", out)
    limits = ("--permutations", "1000", "--maps", "0", "--limit", "8", "--resume")
    command(*words, *kept, *limits)
    assert "is finished; kept" in command(*words, *kept, *limits).err
    plugin("METRIC = record(version=2)")
    assert "measured again (changed: plugins)" in command(*words, *kept, *limits).err


BAD = {
    "of another kind": ("METRIC = 3", "must be an attnprobe Metric, not int"),
    "a name that is taken": ("METRIC = record(name='entropy')", "has a table of that name"),
    "a table's name": ("METRIC = record(name='layer_means')", "has a table of that name"),
    "a pair table's name": ("METRIC = record(name='head_kl_mean')", "has a table of that name"),
    "a path": ("METRIC = record(name='../peak')", "its name names its files"),
    "a separator": ("METRIC = record(name='a|b')", "its name names its files"),
    "two of a name": ("METRICS = [record(), record()]", "two metrics are named 'peak'"),
    "axes": ("METRIC = record(axes=('layer', 'query'))", "its axes are"),
    "no head": ("METRIC = record(axes=('layer',))", "its axes are"),
    "needs": ("METRIC = record(needs='maps')", "needs='maps' is unknown"),
    "no measure": ("METRIC = record(measure=None)", "nothing measures it"),
    "wants nothing": ("METRIC = record(needs='stats')", "it wants"),
    "wants the unknown": (
        "METRIC = record(needs='stats', want=frozenset({'rank'}))",
        "it wants .'rank'.",
    ),
    "no features": (
        "METRIC = record(needs='features', axes=('layer_a', 'layer_b'))",
        "nothing measures it",
    ),
    "no mean": (
        "from attnprobe.statistics import CKA\nMETRIC = record(statistic=CKA)",
        "its statistic is no mean",
    ),
    "no words": ("METRIC = record(unit=lambda options: None)", "give no text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_records_are_refused_before_any_work(plugin, kind):
    exports, words = BAD[kind]
    path = plugin(exports)
    with pytest.raises(AttnprobeError, match=words) as caught:
        extensions.load([path])
    assert caught.value.remedy
    assert kind == "two of a name" or str(path) in caught.value.cause


FAILING = {
    "raises": ("weights.nonsense", "failed on blocks.0.attn with AttributeError"),
    "shape": ("weights[..., :3] @ weights", "failed on blocks.0.attn with RuntimeError"),
    "no tensor": ("1.0", "gave float"),
    "queries, not heads": ("weights.amax(-1).mean((1, 2))", r"gave Tensor \(1, 16\)"),
    "one for all": ("weights.mean()", "gave Tensor"),
    "too many axes": ("weights.amax(-1).mean(1)", r"gave Tensor \(1, 3, 16\)"),
    "not a number": ("weights.amax(-1).mean((1, 3)) / 0 * 0", "is not a finite number"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_values_that_cannot_be_are_refused(checkpoint, plugin, kind):
    body, words = FAILING[kind]
    path = plugin(f"METRIC = record(measure=lambda weights, layer, options: {body})")
    model = attnprobe.load(checkpoint, plugins=[path])
    with pytest.raises(AttnprobeError, match=words) as caught:
        attnprobe.analyze(model, torch.rand(2, 3, 64, 64), metrics=["peak"])
    assert "peak" in caught.value.cause


def test_too_little_memory_is_left_to_the_pass(plugin):
    text = "RuntimeError('not enough memory')"
    broken = one(f"def fail(*_):\n    raise {text}\nMETRIC = record(measure=fail)", plugin)
    layer = LayerInfo(0, "layer", 2, 4, TokenGrid(2, 2, (8, 8)))
    with pytest.raises(RuntimeError, match="not enough memory"):
        broken.measure(torch.zeros(1), layer, MetricOptions())


def test_a_layer_may_be_left_out(plugin):
    silent = one("METRIC = record(measure=lambda *_: None)", plugin)
    layer = LayerInfo(0, "layer", 2, 4, TokenGrid(2, 2, (8, 8)))
    assert silent.measure(torch.zeros(1), layer, MetricOptions()) is None


def test_without_a_plugin_nothing_is_different(checkpoint):
    plain = attnprobe.load(checkpoint)
    assert plain.metrics == ()
    assert "plugins" not in plain.spec.asked
    assert replace(plain, metrics=()) == plain
    assert np.all([metrics.load(name).name == name for name in metrics.names()])
