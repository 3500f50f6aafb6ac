"""Scores and pictures of a run: the attention probe, kNN, linear probe, reconstructions."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from attnprobe.datasets import TrainSet
from attnprobe.errors import AttnprobeError, CaptureError, GeometryError, ImagesError
from attnprobe.evaluation import evaluate as evaluate_encoder
from attnprobe.images import evenly_spaced
from attnprobe.probing import AttentionProbe, suggested_interval
from attnprobe.training import outputs

if TYPE_CHECKING:
    from attnprobe.training.assembly import Run

PICTURES = "pictures"
MOST_PICTURES = 8
TEN_IN_ALL = 10
FIVE = 5
SMALLEST = 96  # pixels of an enlarged panel
GAP = 2  # white pixels between panels
SEED_OF_PICTURES = 2**31 - 1  # an epoch that no run reaches: the same masks every time


def probe_of(run: "Run", *, say: Callable[[str], None]) -> AttentionProbe | None:
    """Return the probe of the run's encoder, or None where it is off or cannot be."""
    section = run.config.watch
    if section.probe_every == 0:
        return None
    if run.accelerator.distributed_type.value == "FSDP":
        say("no attention probe: the encoder is sharded over processes")
        return None
    every = section.probe_every
    if every < 0:
        every = suggested_interval(
            section.probe_limit, run.config.loop.batch_size, run.steps_per_epoch
        )
    return AttentionProbe(
        run.objective.encoder(run.plain),
        section.probe_images,
        out=run.out / "probe",
        every=every,
        limit=section.probe_limit,
        spec=run.spec,
        seed=run.config.loop.seed,
    )


@contextmanager
def unprobed_as_remedy() -> Iterator[None]:
    """Add to errors of a backbone whose attention cannot be measured what to do about it."""
    try:
        yield
    except (CaptureError, GeometryError) as error:
        raise type(error)(
            f"the attention probe cannot read this backbone: {error.cause}",
            "set --probe-every 0 to train it without, or take another --model",
        ) from error


def evaluate(run: "Run", encoder: nn.Module, *, say: Callable[[str], None]) -> dict[str, float]:
    """Return kNN and linear-probe accuracy on the labelled images, and the classifier's own."""
    if run.validation is None:
        return {}
    try:
        found = evaluate_encoder(
            encoder,
            run.pictures,
            run.validation,
            run.spec,
            limit=run.config.watch.eval_limit,
            device=run.accelerator.device,
            workers=run.config.data.workers,
        )
    except ImagesError as error:  # no failure of the run, whose weights are not saved yet
        say(f"no evaluation: {error.cause}")
        return {}
    if not found.pop("linear_converged", 1.0):
        say("the linear probe did not converge: its accuracy is a lower bound")
    if len(run.validation.classes) <= FIVE:  # one of five is always right
        found = {name: value for name, value in found.items() if not name.endswith("top5")}
    return found


def pictures_due(run: "Run", epoch: int) -> bool:
    """Whether reconstructions are drawn after this epoch."""
    every = run.config.watch.pictures_every
    every = every or math.ceil(run.config.loop.epochs / TEN_IN_ALL)
    return epoch % every == 0 or epoch == run.config.loop.epochs


def draw(run: "Run", epoch: int) -> None:
    """Write what the model reconstructs of the first images, a row an image, as one PNG."""
    picked = _first_readable(run)
    if not picked or run.objective.pictures is None:
        return
    batch = {
        name: torch.stack([item[name] for item in picked]).to(run.accelerator.device)
        for name in picked[0]
    }
    was_training = run.plain.training
    run.plain.eval()
    with torch.no_grad():
        panels = run.objective.pictures(run.plain, batch, run.config.options, run.framing)
    run.plain.train(was_training)
    outputs.put(run.out / PICTURES / f"epoch-{epoch:04d}.png", _grid(panels))


def _first_readable(run: "Run") -> list[dict[str, Tensor]]:
    """Return the views of a few images, of the validation set where there is one."""
    source = run.validation or run.pictures
    views = run.objective.views(run.config.options, run.framing)
    drawn = TrainSet(source, views, seed=run.config.loop.seed)
    spread = evenly_spaced(len(source), MOST_PICTURES)
    try:
        return [drawn[(SEED_OF_PICTURES, index)] for index in spread]
    except ImagesError:
        return []


def _grid(panels: Tensor) -> bytes:
    """Lay uint8 [n, panels, 3, h, w] out as rows of panels, small images enlarged."""
    scale = max(1, SMALLEST // panels.shape[-2])
    edges = (0, GAP, 0, GAP)  # right and below
    panels = torch.nn.functional.pad(panels, edges, value=255)
    n, columns, _, height, width = panels.shape
    rows = panels.permute(0, 3, 1, 4, 2).reshape(n * height, columns * width, 3)
    rows = rows[:-GAP, :-GAP]
    image = Image.fromarray(rows.cpu().numpy().astype(np.uint8))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG")  # a few per cent larger than the smallest, several times faster
    return file.getvalue()


def write_report(out: Path, *, say: Callable[[str], None]) -> None:
    """Draw the run's page; a page that cannot be drawn is said and is no failure of the run."""
    try:
        from attnprobe.report import page_of, write

        written = write(page_of(out), out / "report.html", overwrite=True)
    except (AttnprobeError, ImportError) as error:  # a machine may train without plotly
        say(f"the page could not be drawn: {error}")
    else:
        say(f"open {written}")
