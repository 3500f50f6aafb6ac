"""Checkpoints of a training run that is made up: what changes, where and by how much is known."""

from dataclasses import replace

import numpy as np
from synthetic import DEFINITIONS, UNITS, synthetic_result

from attnprobe import tabulate
from attnprobe.tabulate import Bootstrap, Values

IMAGES = 40
LEVEL = {"distance": 80.0, "entropy": 3.5}
AXES = {"head_kl": ("layer", "head_a", "head_b"), "prefix_mass": ("layer", "head", "token")}


def checkpoint(progress, *, name, layers=4, heads=3, images=IMAGES, resamples=300, **model):
    """Result of a checkpoint at a part of the training; 0 is its start and 1 its end.

    Distance falls by 40 px in the first half of the layers and stays in the others; entropy rises
    by 0.5 nats everywhere; heads move apart; the prefix token gets 0.1 more. Images differ by more
    than the checkpoints do, and alike at each of them.
    """
    values = [
        Values(
            metric=metric,
            axes=AXES.get(metric, ("layer", "head")),
            unit=UNITS[metric],
            definition=DEFINITIONS[metric],
            layers=dict(enumerate(samples)),
            uniform=dict.fromkeys(range(layers), 116.5) if metric == "distance" else {},
            tokens=("cls",),
        )
        for metric, samples in _samples(progress, layers, heads, images).items()
    ]
    plain = synthetic_result(name, layers=layers, heads=heads, images=images, metrics=(), **model)
    return replace(
        plain,
        model={**plain.model, "source": f"runs/{name}.pth"},
        tables=tabulate.tables(values, Bootstrap(resamples)),
        samples={item.metric: tabulate.samples_table(item) for item in values},
        arrays={"grams": _grams(progress, layers, images)},
    )


def with_cka(result):
    """The same checkpoint with the table that says that its Gram matrices are meant."""
    cka = synthetic_result(layers=len(result.layers), metrics=("cka",)).tables["cka"]
    return replace(result, tables={**result.tables, "cka": cka})


def run(steps, **sizes):
    """Checkpoints at some steps of one training run, named after them."""
    last = max(steps)
    return [checkpoint(step / last, name=f"ckpt_epoch_{step}", **sizes) for step in steps]


def _samples(progress, layers, heads, images):
    """Per-image values, one array a layer, [images, heads, ...]."""
    rng = np.random.default_rng(0)
    own = rng.normal(0, 1, (images, 1))
    spread = np.linspace(-1, 1, heads) if heads > 1 else np.zeros(1)
    found = {"distance": [], "entropy": [], "head_kl": [], "prefix_mass": []}
    for layer in range(layers):
        depth = layer / max(1, layers - 1)
        noise = np.random.default_rng([layer, int(1000 * progress)]).normal(0, 1, (images, heads))
        falls = 40.0 * progress * (layer < layers / 2)
        found["distance"].append(
            80 + 20 * depth - falls + 8 * spread * (0.4 + progress) + 5 * own + 0.3 * noise
        )
        rises = 0.5 * progress
        found["entropy"].append(3.5 + 0.8 * depth + rises + 0.2 * spread + 0.2 * own + 0.02 * noise)
        apart = np.abs(spread[:, None] - spread[None, :]) * (0.2 + 0.5 * progress * (1 - depth))
        found["head_kl"].append(apart * np.exp(0.1 * own)[:, :, None])
        mass = np.clip(0.1 + 0.1 * progress + 0.02 * own + 0.01 * noise, 0, 1)
        found["prefix_mass"].append(mass[:, :, None])
    return found


def _grams(progress, layers, images):
    """Gram matrices of outputs that drift from noise to a common end, deeper layers later."""
    end = np.random.default_rng(1).normal(size=(layers, images, 24))
    start = np.random.default_rng(2).normal(size=(layers, images, 24))
    speed = np.linspace(3, 0.8, layers)[:, None, None]
    part = np.minimum(1, progress * speed) if progress < 1 else 1.0
    x = part * end + (1 - part) * start
    gram = x @ x.transpose(0, 2, 1)
    first, second = np.triu_indices(images, 1)
    return {"values": gram[:, first, second].astype(np.float32), "sizes": np.array([images])}
