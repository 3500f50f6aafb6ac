"""analyze end to end against plain float64 code, and its invariants."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from scipy.special import entr, rel_entr
from torch import nn

import attnprobe
from attnprobe import Result, tabulate
from attnprobe.errors import AttnprobeError
from attnprobe.gathering import Gathered
from attnprobe.measuring import Measurement, check_options
from attnprobe.metrics import Metric
from attnprobe.readout import Readout
from attnprobe.types import MetricOptions
from tests.test_capture import build, own_softmax

SIZE = 160


def small_model():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15 if parameter.ndim > 1 else 0.5)
    return model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def images():
    return torch.randn(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def result(model, images):
    return attnprobe.analyze(model, images)


def values(result, table="distance"):
    return result.tables[table]["value"].to_numpy()


def of_layer(result, table, layer):
    frame = result.tables[table]
    return frame[frame["layer"] == layer]


def test_every_table_against_plain_float64(result, model, images):
    y, x = np.divmod(np.arange(100), 10)
    gap = 16 * cdist(np.stack([y, x], 1), np.stack([y, x], 1))
    for layer, weights in enumerate(own_softmax(model, images)):
        rows = weights.numpy()[:, :, 1:, :]
        patches = rows[..., 1:] / rows[..., 1:].sum(-1, keepdims=True)
        expected = {
            "distance": (patches * gap).sum(-1).mean((0, 2)),
            "entropy": entr(patches).sum(-1).mean((0, 2)),
            "prefix_mass": rows[..., 0].mean((0, 2)),
        }
        for name, truth in expected.items():
            table = of_layer(result, name, layer)
            np.testing.assert_allclose(table["value"], truth, rtol=1e-4)
        kl = rel_entr(patches[:, 0], patches[:, 1]).sum(-1).mean()
        table = of_layer(result, "head_kl", layer).query("head_a == 0 and head_b == 1")
        np.testing.assert_allclose(table["value"], kl, rtol=1e-4)


def test_swin_tables_against_plain_float64():
    model, images, _ = build("swin")
    result = attnprobe.analyze(model, torch.cat([images] * 4), ["distance", "entropy"])
    truth = own_softmax(model, images)
    for layer, weights in enumerate(truth):
        stride = 4 if layer < 2 else 8  # pixels a token at this stage
        y, x = np.divmod(np.arange(49), 7)
        gap = stride * cdist(np.stack([y, x], 1), np.stack([y, x], 1))
        expected = (weights.numpy() * gap).sum(-1).mean((0, 2))
        table = of_layer(result, "distance", layer)
        np.testing.assert_allclose(table["value"], expected, rtol=1e-4)


def test_intervals_bracket_the_values(result):
    for name in ("distance", "entropy", "head_kl", "head_kl_mean", "layer_means"):
        table = result.tables[name]
        assert (table["low"] <= table["value"] + 1e-9).all()
        assert (table["high"] >= table["value"] - 1e-9).all()
        assert (table["high"] > table["low"]).any()


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_batches_do_not_matter(result, model, images, batch_size):
    again = attnprobe.analyze(model, images, batch_size=batch_size)
    for name in ("distance", "entropy", "head_kl", "prefix_mass", "cka"):
        np.testing.assert_allclose(values(again, name), values(result, name), rtol=2e-4, atol=2e-5)


def test_image_order_does_not_matter(result, model, images):
    again = attnprobe.analyze(model, images.flip(0))
    np.testing.assert_allclose(values(again), values(result), rtol=1e-5)
    np.testing.assert_allclose(values(again, "cka"), values(result, "cka"), atol=1e-5)


def test_conventions_are_named_and_change_the_numbers(result, model, images):
    options = MetricOptions(distance_unit="tokens", entropy_unit="bits", prefix="included")
    other = attnprobe.analyze(model, images, options=options)
    assert set(other.tables["distance"]["unit"]) == {"tokens"}
    assert "prefix keys at distance 0" in other.tables["distance"]["definition"][0]
    assert (values(other) < values(result) / 16).all()
    means = other.tables["layer_means"].query("metric == 'entropy'")
    assert means["uniform"].iloc[0] == pytest.approx(np.log2(101))


def test_attention_averaged_first(model, images):
    other = attnprobe.analyze(model, images, average="attention")
    for layer, weights in enumerate(own_softmax(model, images)):
        mean = weights.numpy().mean(0)[:, 1:, 1:]  # [heads, patches, patches]
        patches = mean / mean.sum(-1, keepdims=True)
        entropy = entr(patches).sum(-1).mean(1)
        np.testing.assert_allclose(of_layer(other, "entropy", layer)["value"], entropy, rtol=1e-6)
        kl = rel_entr(patches[1], patches[0]).sum(-1).mean()
        table = of_layer(other, "head_kl", layer).query("head_a == 1 and head_b == 0")
        np.testing.assert_allclose(table["value"], kl, rtol=1e-5)
    assert other.tables["distance"]["low"].isna().all()
    assert "distance" not in other.samples


def test_samples_average_to_the_table(result):
    means = result.samples["head_kl"].groupby(["layer", "head_a", "head_b"])["value"].mean()
    off = [index for index in means.index if index[1] != index[2]]
    np.testing.assert_allclose(means.loc[off], values(result, "head_kl"), rtol=1e-5)
    assert len(result.images) == 12


def test_layers_state_their_uniform_values(result):
    row = result.layers.iloc[0]
    assert row["entropy_uniform"] == pytest.approx(np.log(100))
    assert 0 < row["distance_uniform"] < row["distance_max"]


def test_provenance(result, images):
    facts = result.provenance
    assert facts.images == 12
    assert len(facts.weights_sha256) == len(facts.images_sha256) == 64
    assert torch.__version__.startswith(facts.versions["torch"])
    assert facts.kernel == "blocked"
    other = attnprobe.analyze(small_model(), images + 1e-3, ["entropy"])
    assert other.provenance.weights_sha256 == facts.weights_sha256
    assert other.provenance.images_sha256 != facts.images_sha256


def test_progress_counts_images(model, images):
    seen = []
    attnprobe.analyze(
        model, images, ["entropy"], progress=lambda *pair: seen.append(pair), batch_size=5
    )
    assert seen == [(5, 12), (10, 12), (12, 12)]


def test_folder_with_a_broken_image(tmp_path, model):
    for index in range(9):
        Image.effect_noise((200, 180), 50).convert("RGB").save(tmp_path / f"{index}.jpg")
    (tmp_path / "5.jpg").write_bytes(b"not a jpeg")
    result = attnprobe.analyze(model, tmp_path, ["entropy"])
    assert result.provenance.images == 8
    assert len(result.provenance.skipped) == 1
    assert "5.jpg" in result.provenance.skipped[0]


@pytest.mark.parametrize("field", ["prefix", "average", "divergence", "cka_tokens"])
def test_unknown_conventions_are_refused(field):
    with pytest.raises(AttnprobeError, match="nonsense"):
        check_options(MetricOptions(**{field: "nonsense"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ["beauty"]}, "unknown metric 'beauty'"),
        ({"metrics": []}, "no metric"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"precision": "int8"}, "int8"),
        ({"kernel": "magic"}, "magic"),
    ],
)
def test_bad_requests_fail_before_the_work(model, images, changes, message):
    with pytest.raises(AttnprobeError, match=message):
        attnprobe.analyze(model, images, **changes)


def test_nan_does_not_travel(images):
    model = small_model()
    with torch.no_grad():
        model.blocks[2].attn.qkv.weight[:] = float("nan")
    with pytest.raises(AttnprobeError, match="layer 2"):
        attnprobe.analyze(model, images, ["entropy"])


def test_half_precision_forward_is_close(result, model, images):
    half = attnprobe.analyze(model, images, precision="bf16")
    assert half.provenance.precision == "bfloat16"
    np.testing.assert_allclose(values(half), values(result), rtol=0.05)


def test_a_metric_over_weights_needs_no_kernel(model, images, monkeypatch):
    peak = Metric(
        name="peak",
        title="largest weight",
        axes=("layer", "head"),
        needs="weights",
        version=1,
        unit=lambda options: "fraction",
        definition=lambda options: "largest weight of a row, v1",
        measure=lambda weights, layer, options: weights.amax(-1).mean((1, 3)),
    )
    measured = Measurement((peak,), MetricOptions())
    with torch.no_grad(), attnprobe.capture(model, measured.on_attention, lambda _: None) as taps:
        model(images)
    gathered = Gathered((peak,), MetricOptions(), 12)
    blank = np.zeros((12, 32), np.uint8)
    gathered.add_batch(measured.take(taps.layers), range(12), blank, {})
    values = Readout((peak,), MetricOptions(), gathered.finish()).values()
    table = tabulate.tables(values, tabulate.Bootstrap(200))["peak"]
    assert len(table) == 12
    assert table["value"].between(0.01, 1).all()


def test_saved_and_read_back(result, tmp_path):
    again = Result.load(result.save(tmp_path / "run"))
    np.testing.assert_array_equal(values(again, "cka"), values(result, "cka"))


def test_one_in_some_queries_is_said_and_close(result, model, images):
    some = attnprobe.analyze(model, images, query_step=3)
    assert some.config["query_step"] == 3
    for table in ("distance", "entropy", "head_kl", "prefix_mass"):
        assert some.tables[table]["definition"][0].startswith("over one in 3 patch queries; ")
        np.testing.assert_allclose(values(some, table), values(result, table), rtol=0.25, atol=0.02)
        assert (values(some, table) != values(result, table)).any()
    assert some.tables["cka"].equals(result.tables["cka"])
    with pytest.raises(AttnprobeError, match="every 0th query"):
        attnprobe.analyze(model, images, query_step=0)
