"""Section peers: attnprobe against other ways to the same numbers, over the same tensors.

First the numbers: on a small model with peaked attention, distance, entropy and KL of every layer
and head agree with attnprobe's under both conventions for prefix keys. The timed runs of the
peers keep the rows as they are, which saves them a division; analyze is timed whole, with its
tables and intervals, which the peers do not make.
"""

from collections.abc import Iterator

import numpy as np
import torch
from _common import BARE, Measure, Settings, bare, build, interleave, pictures, timed
from _peers import Statistics, extract, extractor, stored
from _rows import Row, agreed, gate, row, rows

import attnprobe

METRICS = {"distance": "distance", "entropy": "entropy", "head_kl": "kl"}
OURS, EXTRACT, STORED = "attnprobe", "AttentionExtract and pair loop", "stored maps, numpy"
PEERS = {EXTRACT: extract, STORED: stored}
TOLERANCE = 1e-5  # both sides in fp32, whatever precision is timed
CONVENTIONS = {"excluded": False, "renormalised": True}
TINY = ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2})
CASES = {  # title, timm's name and arguments, images, batch, rounds
    "full": (("ViT-B/16 at 224", "vit_base_patch16_224", {}, 12, 4, 5),),
    "quick": (("ViT-B/16 at 224", "vit_base_patch16_224", {}, 4, 2, 2),),
    "toy": (("ViT-Ti/16 at 64, 2 layers", *TINY, 8, 4, 2),),
}
LARGE = "vit_large_patch14_reg4_dinov2"
ON_CUDA = (("ViT-L/14 with registers at 518", LARGE, {}, 8, 4, 5),)


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of the agreement, then of every case."""
    gate(settings.device)
    yield agreement(settings)
    more = ON_CUDA if settings.cuda and settings.size == "full" else ()
    for title, name, options, count, batch, turns in (*CASES[settings.size], *more):
        model = build(name, settings, **options)
        large = (title, name, options, count, batch, turns) in more
        size = batch if large else settings.batch_of(batch)
        # numpy works on the host, whatever the device: two batches are enough
        images = pictures(model, settings.images or (2 * size if settings.cuda else count))
        chosen = providers(model, images, size, settings)
        if large:  # numpy would take minutes an image
            del chosen[STORED]
        found = interleave(chosen, settings.rounds or turns)
        yield rows("peers", title, found, settings, images=len(images), batch=size)


def providers(
    model: attnprobe.LoadedModel, images: torch.Tensor, batch: int, settings: Settings
) -> dict[str, Measure]:
    """Return what is timed, by name; the first is the floor."""
    module, taken = model.module, extractor(model.module)

    def ours() -> object:
        return settings.analyze(model, images, metrics=tuple(METRICS), batch_size=batch)

    def theirs() -> object:
        return extract(module, images, batch, settings, taken=taken)

    return {
        BARE: lambda: {"whole run": bare(module, images, batch, settings)["whole run"]},
        OURS: lambda: timed(ours, settings),
        EXTRACT: lambda: timed(theirs, settings),
        STORED: lambda: timed(lambda: stored(module, images, batch, settings), settings),
    }


def agreement(settings: Settings) -> list[Row]:
    """Return how far each peer's numbers are from ours, relative to the largest value.

    Raises:
        ClickException: Too far.
    """
    exact = Settings(device=settings.device)  # fp32: rounding is not what is judged
    model = build(TINY[0], exact, **TINY[1])
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if name.endswith("qkv.weight"):  # random weights attend to everything alike
                weight *= 4
    images, made = pictures(model, 6), []
    for convention, renormalise in CONVENTIONS.items():
        options = {"metrics": tuple(METRICS), "prefix": convention, "batch_size": 4}
        result = exact.analyze(model, images, **options, resamples=100)
        for name, peer in PEERS.items():
            found = peer(model.module, images, 4, exact, renormalise=renormalise)
            apart = deviation(result, found)
            agreed(f"{name}, prefix keys {convention}", apart, TOLERANCE)
            about = {"case": f"numbers, prefix keys {convention}", "provider": name}
            facts = {"quantity": "largest difference from attnprobe", "unit": "relative"}
            made.append(row(settings, section="peers", **about, **facts, value=apart, images=6))
    return made


def deviation(result: attnprobe.Result, found: Statistics) -> float:
    """Return the largest difference of means over images, relative to the largest value."""
    worst = 0.0
    for metric, statistic in METRICS.items():
        table = result.tables[metric]
        theirs = getattr(found, statistic).mean(1)  # [layers, heads (, heads)]
        axes = [
            table[name].to_numpy()
            for name in ("layer", "head", "head_a", "head_b")
            if name in table
        ]
        apart = np.abs(theirs[tuple(axes)] - table["value"].to_numpy()).max()
        worst = max(worst, float(apart / np.abs(theirs).max()))
    return worst
