"""Section overhead: analyze against the bare forward pass of the same model over the same tensors.

Per image is the time from the end of the first batch to the end of the last, over the images
between: what one more image costs. A whole run has everything, from hashing the images to tables
and intervals; what follows the last batch is also measured apart, at a usual number of images.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from _common import BARE, Clock, Measure, Settings, bare, build, interleave, pictures
from _rows import Row, gate, rows
from torch import Tensor

import attnprobe

KERNEL = ("distance", "entropy", "head_kl", "prefix_mass")
ALL = (*KERNEL, "cka")
TOGETHER, EVERYTHING, CAPTURE = "all but cka", "all five metrics", "capture alone"
SOME = "all but cka, one query in four"
FIXED = "after the last batch"


@dataclass(frozen=True)
class Case:
    """One model and how much of it a CPU can bear.

    Attributes:
        title: Words for tables.
        name: timm's name.
        images: Images in one run.
        batch: Images in one forward pass.
        rounds: Rounds that count.
        singly: Whether every metric is timed alone too.
        options: Arguments of the model.
    """

    title: str
    name: str
    images: int
    batch: int
    rounds: int
    singly: bool = False
    options: dict[str, Any] = field(default_factory=dict)


BASE, LARGE = "vit_base_patch16_224", "vit_large_patch14_reg4_dinov2"
SWIN, SWIN_V2 = "swin_base_patch4_window7_224", "swinv2_base_window8_256"
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2}
CASES = {
    "full": (
        Case("ViT-B/16 at 224", BASE, 9, 3, 4, singly=True),
        Case("ViT-L/14 with registers at 518", LARGE, 2, 1, 3),
        Case("ViT-B/16 at 1024", BASE, 2, 1, 3, options={"img_size": 1024}),
        Case("Swin-B at 224", SWIN, 9, 3, 4),
        Case("Swin V2-B at 256", SWIN_V2, 9, 3, 4),
    ),
    "quick": (Case("ViT-B/16 at 224", BASE, 6, 2, 2),),
    "toy": (Case("ViT-Ti/8 at 32, 2 layers", "vit_tiny_patch16_224", 12, 4, 2, True, SMALL),),
}
TABLES = {"full": (512, 12, 2), "quick": (128, 12, 1), "toy": (16, 2, 1)}  # images, layers, rounds


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of one case after the other."""
    gate(settings.device)
    for case in CASES[settings.size]:
        batch = settings.batch_of(case.batch)
        count = settings.images_of(case.images, batch)
        model = build(case.name, settings, **case.options)
        chosen = providers(model, pictures(model, count), batch, settings, singly=case.singly)
        # one batch a run: the first image is the warm-up
        found = interleave(chosen, settings.rounds or case.rounds, warm=count > 2 * batch)
        for runs in found.values():
            for seconds in () if isinstance(runs, str) else runs:
                seconds.pop(FIXED, None)
        about = {"images": count, "batch": batch}
        yield rows("overhead", case.title, found, settings, **about)
    yield tables(settings)


def providers(
    model: attnprobe.LoadedModel,
    images: Tensor,
    batch: int,
    settings: Settings,
    *,
    singly: bool,
) -> dict[str, Measure]:
    """Return what is timed, by name; the first is the floor."""

    def measured(metrics: tuple[str, ...]) -> Measure:
        return lambda: analysis(model, images, metrics, batch, settings)

    enough = len(images) >= 5  # cka needs them
    every = ALL if enough else KERNEL
    return {
        BARE: lambda: bare(model.module, images, batch, settings),
        **({CAPTURE: lambda: captured(model, images, batch, settings)} if enough else {}),
        **({name: measured((name,)) for name in every} if singly or settings.cuda else {}),
        TOGETHER: measured(KERNEL),
        **({} if enough else {SOME: lambda: analysis(model, images, KERNEL, batch, settings, 4)}),
        **({EVERYTHING: measured(ALL)} if enough else {}),
    }


def captured(
    model: attnprobe.LoadedModel, images: Tensor, batch: int, settings: Settings
) -> dict[str, float]:
    """Time the capture with nothing measured."""

    def skip(record: object) -> None:
        del record

    with torch.inference_mode(), attnprobe.capture(model.module, skip, skip):
        return bare(model.module, images, batch, settings)


def analysis(
    model: attnprobe.LoadedModel,
    images: Tensor,
    metrics: tuple[str, ...],
    batch: int,
    settings: Settings,
    step: int = 1,
) -> dict[str, float]:
    """Time analyze: per image, the whole run, and what follows the last batch."""
    clock = Clock(settings)
    settings.analyze(
        model, images, metrics=metrics, batch_size=batch, progress=clock, query_step=step
    )
    return clock.seconds()


def tables(settings: Settings) -> list[Row]:
    """Return what follows the last batch of many images: tables and intervals, metric by metric.

    It depends on images, layers and heads and on nothing else, so the images are small.
    """
    count, depth, turns = TABLES[settings.size]
    model = build(BASE, settings, img_size=32, depth=depth)
    images = pictures(model, count)
    title = f"{depth} layers of 12 heads, {count} images"

    def after(metrics: tuple[str, ...]) -> Measure:
        return lambda: {FIXED: analysis(model, images, metrics, 64, settings)[FIXED]}

    chosen = {**{name: after((name,)) for name in ALL}, EVERYTHING: after(ALL)}
    found = interleave(chosen, settings.rounds or turns, warm=False)
    return rows("overhead", title, found, settings, images=count, batch=64)
