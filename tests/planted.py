"""Results with known per-image truth: what a model's heads do is drawn from given means."""

from dataclasses import replace

import numpy as np
import pandas as pd

from attnprobe import hsic
from attnprobe.results import Result
from attnprobe.types import Provenance

UNITS = {"distance": "px", "entropy": "nats", "head_kl": "nats", "cka": ""}


def planted(
    name="model",
    *,
    distance=None,
    kl=None,
    features=None,
    images=64,
    noise=1.0,
    seed=0,
    uniform=100.0,
    shared=None,
):
    """Result with per-image values around given means.

    `distance` [layers, heads] in px against a uniform value of 100 px; `kl` [layers, heads, heads]
    in nats; `features` [layers][images, channels] for CKA. Entropy is distance / 20. Images share
    `shared` [images] between models, as photographs do.
    """
    rng = np.random.default_rng(seed)
    depth = len(features) if features is not None else 4
    distance = np.full((depth, 3), 60.0) if distance is None else np.asarray(distance, float)
    layers, heads = distance.shape
    common = np.zeros(images) if shared is None else shared
    values = distance + noise * rng.normal(size=(images, layers, heads)) + common[:, None, None]
    samples = {
        "distance": frame(values, ("layer", "head")),
        "entropy": frame(values / 20, ("layer", "head")),
    }
    if kl is None:
        kl = np.ones((layers, heads, heads))
    kl = np.asarray(kl, float) * rng.gamma(16, 1 / 16, (images, layers, 1, 1))
    kl[:, :, range(heads), range(heads)] = 0
    samples["head_kl"] = frame(kl, ("layer", "head_a", "head_b"))
    arrays = {}
    if features is not None:
        grams = np.stack([gram(x) for x in features])
        samples["cka"] = frame(hsic.pseudo_values(grams), ("layer_a", "layer_b"))
        row, col = np.triu_indices(images, 1)
        parts = {"values": grams[:, row, col].astype(np.float32), "sizes": np.array([images])}
        arrays = {"grams": parts}
    tables = {key: mean_table(value, key) for key, value in samples.items()}
    tables["layer_means"] = layer_means(samples, uniform)
    return Result(
        name=name,
        config={},
        provenance=Provenance(images=images, images_sha256="ab" * 32, precision="float32"),
        model={"name": name, "input_size": [3, 224, 224], "crop_pct": 0.9, "assumed": []},
        layers=layers_frame(layers, heads, uniform),
        images=pd.DataFrame({"image": range(images), "id": [f"{n}.jpg" for n in range(images)]}),
        tables=tables,
        samples=samples,
        arrays=arrays,
    )


def gram(features):
    centred = features - features.mean(0)
    found = centred @ centred.T
    np.fill_diagonal(found, 0)
    return found / np.sqrt((found**2).mean())


def frame(values, axes):
    """Tidy frame of [images, *axes]."""
    index = np.indices(values.shape).reshape(values.ndim, -1)
    columns = dict(zip(("image", *axes), index, strict=True))
    return pd.DataFrame(columns | {"value": values.ravel().astype(np.float32)})


def mean_table(samples, metric):
    axes = [name for name in samples.columns if name not in ("image", "value")]
    table = samples.groupby(axes, as_index=False)["value"].mean()
    extra = {"low": np.nan, "high": np.nan, "unit": UNITS[metric], "definition": f"{metric}, v1"}
    return table.assign(**extra)


def layer_means(samples, uniform):
    parts = []
    for metric in ("distance", "entropy", "head_kl"):
        means = samples[metric].groupby("layer", as_index=False)["value"].mean()
        flat = {"distance": uniform, "entropy": uniform / 20, "head_kl": np.nan}[metric]
        parts.append(means.assign(metric=metric, uniform=flat, low=np.nan, high=np.nan))
    whole = pd.concat(parts, ignore_index=True)
    extra = {"head_min": np.nan, "head_max": np.nan, "head_sd": np.nan}
    words = {"unit": whole.metric.map(UNITS), "definition": "v1", "fraction": np.nan}
    return whole.assign(**extra, **words)


def layers_frame(layers, heads, uniform):
    return pd.DataFrame(
        {
            "layer": range(layers),
            "name": [f"blocks.{n}.attn" for n in range(layers)],
            "stage": 0,
            "heads": heads,
            "head_dim": 64,
            "rows": 14,
            "cols": 14,
            "patch_h": 16.0,
            "patch_w": 16.0,
            "prefix": 0,
            "window_rows": 0,
            "window_cols": 0,
            "shift_rows": 0,
            "shift_cols": 0,
            "patches": 196,
            "distance_uniform": uniform,
            "distance_max": 2 * uniform,
            "entropy_uniform": uniform / 20,
        }
    )


def on_other_images(result):
    """The same result as if measured on other images."""
    return replace(result, provenance=replace(result.provenance, images_sha256="cd" * 32))
