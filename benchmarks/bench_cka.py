"""Section cka: CKA between the layers of two ViT-S, 24 layers together, against three packages.

Time is over the bare forward passes of both models. attnprobe's side is whole: both runs with
their tables and intervals, and the joint matrix from the Gram matrices that they keep; it holds
the values within each model too, which the packages do not compute.
"""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from _child import measured_apart
from _common import (
    BARE,
    WHOLE,
    Measure,
    PeerError,
    Settings,
    bare,
    build,
    interleave,
    pictures,
    timed,
)
from _rows import Row, agreed, gate, row, rows
from _similarity import PEERS, Pair, one_batch, ours, present

MEAN, FLAT = "attnprobe, mean of patches", "attnprobe, all tokens"
TOKENS = {MEAN: "mean", FLAT: "flat"}
MINI_BATCH = 64
TOLERANCE = 2e-3  # packages compute in fp32 what attnprobe computes in float64
NAME = "vit_small_patch16_224"
CASES = {  # title, model options, images, mini-batch, rounds
    "full": (
        ("two ViT-S/16 at 64", {"img_size": 64}, 1024, MINI_BATCH, 2),
        ("two ViT-S/16 at 224", {}, 64, MINI_BATCH, 1),
    ),
    "quick": (("two ViT-S/16 at 64", {"img_size": 64}, 128, MINI_BATCH, 2),),
    "toy": (("two ViT-S/16 at 32, 2 layers", {"img_size": 32, "depth": 2}, 32, 16, 1),),
}
ON_CUDA = ("two ViT-S/16 at 224", {}, 1024, MINI_BATCH, 3)
HOOKED = {"toy": {"img_size": 32, "depth": 2}}  # of the agreement
DEFAULT_HOOKED = {"img_size": 64, "depth": 4}


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of the agreement, then of every case."""
    gate(settings.device)
    versions = present()
    yield agreement(settings, versions)
    cases = CASES[settings.size]
    if settings.cuda and settings.size == "full":
        cases = (ON_CUDA,)
    for title, options, wished, batch, turns in cases:
        models = pair(settings, **options)
        images = pictures(models[0], settings.images or wished)
        chosen = providers(models, images, batch, settings, versions)
        found = interleave(chosen, settings.rounds or turns, warm=settings.cuda)
        made = rows("cka", title, found, settings, images=len(images), batch=batch)
        yield [named(each, versions) for each in made]
    if settings.size != "quick":
        yield memory(settings, versions)


def pair(settings: Settings, **options: Any) -> Pair:
    """Return two models with different weights."""
    a, b = (build(NAME, settings, **options) for _ in range(2))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for parameter in b.module.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter += 0.02 * noise
    return a, b


def providers(
    models: Pair, images: torch.Tensor, batch: int, settings: Settings, versions: dict[str, str]
) -> dict[str, Measure]:
    """Return what is timed, by name; the first is the floor."""

    def both() -> dict[str, float]:
        parts = [bare(model.module, images, batch, settings)[WHOLE] for model in models]
        return {WHOLE: sum(parts)}

    def call(peer: Any, **options: Any) -> Measure:
        return lambda: timed(partial(peer, models, images, batch, settings, **options), settings)

    def guarded(name: str) -> Measure:
        timed_call = call(PEERS[name])

        def run_it() -> dict[str, float]:
            try:
                return timed_call()
            except (AssertionError, ValueError) as error:  # they refuse values that are no numbers
                raise PeerError(f"failed: {error}") from error

        return run_it

    changes = {name: {"cka_tokens": tokens, "cka_batch": batch} for name, tokens in TOKENS.items()}
    return {
        BARE: both,
        **{name: call(ours, **options) for name, options in changes.items()},
        **{name: guarded(name) for name in versions},
    }


def named(found: Row, versions: dict[str, str]) -> Row:
    """Write the version of a package into its row."""
    if (name := found["provider"]) in versions:
        found["note"] = f"{name} {versions[name]} {found['note']}".strip()
    return found


def agreement(settings: Settings, versions: dict[str, str]) -> list[Row]:
    """Return how far every package's values are from ours where the definitions agree.

    Raises:
        ClickException: Too far.
    """
    exact = Settings(device=settings.device)
    models = pair(exact, **HOOKED.get(settings.size, DEFAULT_HOOKED))
    images, made = pictures(models[0], 32), []
    options = {"cka_tokens": "flat", "resamples": 100}
    several = ours(models, images, 16, exact, cka_batch=16, **options)
    single = ours(models, images, 32, exact, cka_batch=32, **options)
    for name in versions:
        if name == "ckatorch":  # its loop is defined otherwise; its estimator is the same
            apart = float(np.abs(one_batch(models, images, exact) - single).max())
            note = "estimator on one mini-batch; its loop measures something else"
        else:
            apart = float(np.abs(PEERS[name](models, images, 16, exact) - several).max())
            note = "two mini-batches of 16"
        agreed(name, apart, TOLERANCE)
        facts = {"quantity": "largest difference from attnprobe", "unit": "CKA", "note": note}
        about = {"case": "values, all tokens", "provider": name, "images": 32}
        made.append(named(row(settings, section="cka", **about, **facts, value=apart), versions))
    return made


def memory(settings: Settings, versions: dict[str, str]) -> list[Row]:
    """Return the peak memory of every provider, each in its own process."""
    title, options, _, batch, _ = CASES[settings.size][0]
    count, made = 2 * batch, []
    for name in (BARE, *TOKENS, *versions):
        job = {"provider": name, "options": options, "count": count, "batch": batch}
        found = measured_apart("cka", job, settings)
        facts = {"quantity": "peak memory beyond the models", "unit": "MiB"}
        value = {} if found.failed else {"value": found.beyond / 2**20}
        about = {"case": title, "provider": name, "images": count, "batch": batch}
        facts |= {"note": found.failed} | value
        made.append(named(row(settings, section="cka", **about, **facts), versions))
    return made


def alone(job: dict, settings: Settings) -> tuple[object, object]:
    """Return the models of a memory job, and what to call."""
    models = pair(settings, **job["options"])
    images = pictures(models[0], job["count"])
    versions = {name: "" for name in PEERS if name == job["provider"]}
    for name in versions:  # importing is not measuring
        import_module(name)
    chosen = providers(models, images, job["batch"], settings, versions)
    return (models, images), chosen[job["provider"]]
