"""A Result built from random per-image samples, for tests that never run a model."""

from itertools import product

import numpy as np
import pandas as pd

from attnprobe.results import Result
from attnprobe.types import Provenance, TokenGrid

DEFINITIONS = {
    "distance": "px, patch-to-patch, renormalised, v1",
    "entropy": "nats, patch keys, renormalised, v1",
    "head_kl": "nats, KL(a from b), patch keys, renormalised, v1",
    "head_kl_mean": "nats, mean over the other heads of a layer, v1",
    "prefix_mass": "fraction, attention of patch queries on one prefix token, v1",
    "cka": "linear, unbiased HSIC1, mean of patches, v1",
}
UNITS = {
    "distance": "px",
    "entropy": "nats",
    "head_kl": "nats",
    "head_kl_mean": "nats",
    "prefix_mass": "fraction",
    "cka": "",
}
METRICS = ("distance", "entropy", "head_kl", "prefix_mass", "cka")
MEANS = ["metric", "layer", "value", "low", "high", "head_min", "head_max", "head_sd"]
MEANS += ["uniform", "fraction", "unit", "definition"]


def synthetic_result(
    name="vit_tiny",
    *,
    layers=4,
    heads=3,
    images=6,
    tokens=("cls",),
    metrics=METRICS,
    grid=14,
    window=None,
    geometry=True,
    intervals=True,
    seed=0,
    **model,
):
    """Result whose tables are the means of random samples; every table follows the schema.

    `metrics` leaves tables out, `geometry=False` gives null uniform distances and
    `intervals=False` null interval ends; `model` overrides entries of the model card.
    """
    rng = np.random.default_rng(seed)
    frames = _layers(layers, heads, grid, window, len(tokens), geometry)
    shape = {"layer": range(layers), "head": range(heads)}
    wanted = set(metrics) | ({"head_kl_mean"} if "head_kl" in metrics else set())
    wanted -= set() if tokens else {"prefix_mass"}
    axes = {
        "distance": shape,
        "entropy": shape,
        "head_kl_mean": shape,
        "head_kl": {"layer": range(layers), "head_a": range(heads), "head_b": range(heads)},
        "prefix_mass": {**shape, "token": tokens},
        "cka": {"layer_a": range(layers), "layer_b": range(layers)},
    }
    top = {"distance": 120.0, "entropy": 5.0, "prefix_mass": 0.3}
    samples = {
        metric: _samples(rng, metric, axes[metric], images, top.get(metric, 1.0))
        for metric in axes
        if metric in wanted
    }
    tables = {key: _table(key, frame, intervals) for key, frame in samples.items()}
    tables["layer_means"] = _means(tables, frames, intervals)
    return Result(
        name=name,
        config={"metrics": list(metrics), "limit": images, "options": {"distance_unit": "px"}},
        provenance=_provenance(images),
        model={**_card(name), **model},
        layers=frames,
        images=pd.DataFrame({"image": range(images), "id": [f"i{n}.png" for n in range(images)]}),
        tables=tables,
        samples=samples,
    )


def _layers(layers, heads, grid, window, prefix, geometry):
    place = TokenGrid(grid, grid, (16.0, 16.0), prefix, (window, window) if window else None)
    gaps = place.distances()
    return pd.DataFrame(
        {
            "layer": range(layers),
            "name": [f"blocks.{n}.attn" for n in range(layers)],
            "stage": 0,
            "heads": heads,
            "head_dim": 64,
            "rows": grid,
            "cols": grid,
            "patch_h": 16.0,
            "patch_w": 16.0,
            "prefix": prefix,
            "window_rows": window or 0,
            "window_cols": window or 0,
            "shift_rows": 0,
            "shift_cols": 0,
            "patches": place.patches,
            "distance_uniform": float(gaps.mean()) if geometry else np.nan,
            "distance_max": float(gaps.max()) if geometry else np.nan,
            "entropy_uniform": float(np.log(place.patches)),
        }
    )


def _samples(rng, metric, axes, images, top):
    keys = [key for key in product(*axes.values()) if metric != "head_kl" or key[1] != key[2]]
    frame = pd.DataFrame(
        [(image, *key) for image in range(images) for key in keys], columns=["image", *axes]
    )
    level = dict(zip(keys, rng.uniform(0.05, 0.95, len(keys)), strict=True))
    noise = rng.normal(0, 0.02, len(frame))
    frame["value"] = [
        top * abs(level[key] + eps)
        for key, eps in zip(frame[[*axes]].itertuples(index=False, name=None), noise, strict=True)
    ]
    if metric == "cka":
        frame["value"] = 1 / (1 + 0.2 * (frame.layer_a - frame.layer_b).abs())
    return frame


def _table(metric, samples, intervals):
    axes = [name for name in samples.columns if name not in ("image", "value")]
    table = samples.groupby(axes, as_index=False, sort=False)["value"].agg(["mean", "sem"])
    table = table.rename(columns={"mean": "value"})
    spread = table.pop("sem") * 1.96 if intervals else np.nan
    table["low"], table["high"] = table.value - spread, table.value + spread
    table["unit"], table["definition"] = UNITS[metric], DEFINITIONS[metric]
    return table


def _means(tables, layers, intervals):
    parts = [
        _mean(metric, tables[source], layers, intervals)
        for metric, source in (
            ("distance", "distance"),
            ("entropy", "entropy"),
            ("head_kl", "head_kl_mean"),
            ("prefix_mass", "prefix_mass"),
        )
        if source in tables
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=MEANS)


def _mean(metric, table, layers, intervals):
    by_layer = table.groupby(["layer", "head"])["value"].sum().groupby("layer")
    uniform = layers.get(f"{metric}_uniform", pd.Series(np.nan, index=layers.index))
    if metric == "prefix_mass":
        uniform = layers.prefix / (layers.prefix + layers.patches)
    frame = pd.DataFrame({"metric": metric, "layer": layers.layer, "value": by_layer.mean()})
    spread = 0.02 * frame.value if intervals else np.nan
    frame["low"], frame["high"] = frame.value - spread, frame.value + spread
    frame["head_min"], frame["head_max"] = by_layer.min(), by_layer.max()
    frame["head_sd"] = by_layer.std()
    frame["uniform"], frame["fraction"] = uniform, frame.value / uniform
    frame["unit"], frame["definition"] = UNITS[metric], DEFINITIONS[metric]
    return frame


def _card(name):
    return {
        "name": name,
        "architecture": "vit_tiny_patch16_224",
        "format": "timm",
        "source": f"timm:{name}",
        "objective": "mim",
        "parameters": 5_717_416,
        "input_size": [3, 224, 224],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "assumed": ["64 channels a head"],
        "ledger": {
            "matched": ["norm.weight", "norm.bias"],
            "converted": ["encoder.cls_token -> cls_token"],
            "resampled": [],
            "dropped": ["decoder.0.weight: decoder"],
            "missing": ["head.weight"],
        },
    }


def _provenance(images):
    return Provenance(
        weights_sha256="ab" * 32,
        images_sha256="cd" * 32,
        images=images,
        skipped=("broken.jpg: truncated file",),
        transform={"resize": "248, bicubic", "crop": "224"},
        versions={"attnprobe": "0.1.0", "torch": "2.9.0"},
        command="attnprobe analyze vit_tiny --out run",
        created="2026-11-23T14:00:00Z",
        seconds=12.5,
    )
