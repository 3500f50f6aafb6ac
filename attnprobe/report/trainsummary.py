"""A training run in plain words: what was trained, how far, and what came of it."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from attnprobe.frames import rows
from attnprobe.plots._scores import NAMES, score_name
from attnprobe.report import summary, tracksummary
from attnprobe.results import Result
from attnprobe.tracking import Track
from attnprobe.traininglog import TrainingRun

STOOD = {
    "finished": "The run is finished",
    "running": "The run was under way when this page was written",
    "interrupted": "The run was interrupted",
    "diverged": "The run was stopped because its loss was no longer a number",
}
SCORED = {
    "knn_top1": "A kNN classifier on the frozen encoder reaches a top-1 accuracy of",
    "linear_top1": "A linear probe reaches",
    "top1": "The classifier itself reaches a top-1 accuracy of",
}
MILLION = 1_000_000


def sentences(run: TrainingRun, track: Track | None, last: list[Result]) -> list[str]:
    """Return paragraphs: what was trained, loss and scores, what became of attention.

    Args:
        run: The run.
        track: Its probes, where they are two or more that stand on one axis.
        last: The last probe, if there is one.
    """
    parts = [" ".join(_trained(run)), " ".join([*_loss(run), *_scores(run)])]
    if track is not None:
        first, *changes = tracksummary.sentences(track)
        parts += [first.replace(" checkpoints, ", " probes of the attention, ", 1), *changes]
    elif last:
        step = last[0].model.get("step", 0)
        told = " ".join(summary.sentences(last[0]))
        parts.append(f"Attention as it was after {_count(step, 'update')}: {told}")
    return [part for part in parts if part]


def facts(run: TrainingRun) -> list[tuple[str, Any]]:
    """Return the headline facts that are known."""
    held, last = run.manifest, _last(run.scalars)
    found = [
        ("Status", held["status"].capitalize()),
        ("Objective", held["objective"]),
        ("Model", held["model"].get("architecture")),
        ("Parameters", held["model"].get("parameters")),
        ("Epochs", f"{held['step'] / held['steps_per_epoch']:.4g}"),
        ("Loss", _digits(last.get("loss_smooth"))),
        *((score_name(name), _percent(value)) for name, value in _best_known(run).items()),
        ("Images per second", _digits(held.get("images_per_second"))),
    ]
    return [(term, value) for term, value in found if value]


def card(run: TrainingRun) -> list[tuple[str, Any]]:
    """Return every fact of the manifest that a reader may look for."""
    held, model, data = run.manifest, run.manifest["model"], run.manifest["data"]
    found = [
        ("Name", held["name"]),
        ("Objective", held.get("title") or held["objective"]),
        ("Recipe", held.get("recipe")),
        ("Architecture", model.get("architecture")),
        ("Arguments of the model", model.get("model_args")),
        ("Parameters of the encoder", _thousands(model.get("parameters"))),
        ("Begun from", model.get("init")),
        ("Data", data.get("label")),
        ("Training images", _thousands(data.get("images"))),
        ("Classes", data.get("classes")),
        ("Updates done", f"{_thousands(held['step'])} of {_thousands(held['steps'])}"),
        ("Images of an update", held["batch_size"]),
        ("Updates of an epoch", held["steps_per_epoch"]),
        ("Device", held.get("device")),
        ("Precision", held.get("precision")),
        ("Processes", held.get("processes")),
        ("Training time", duration(held.get("seconds"))),
        ("Weights", held.get("weights")),
        ("Licence", held.get("licence")),
        ("Begun", held.get("created")),
        ("Versions", held.get("versions")),
        ("Data sha256", data.get("sha256")),
        ("The hash is over", data.get("hashed")),
    ]
    return [(term, value) for term, value in found if value not in (None, "", {}, [])]


def skipped(run: TrainingRun, last: list[Result]) -> list[str]:
    """Return images that could not be read, of the training and of the probe."""
    own = list(run.manifest.get("skipped", ()))
    return own + [f"probe: {text}" for result in last for text in result.provenance.skipped]


def duration(seconds: float | None) -> str:
    """Return a time in words.

    >>> duration(59.96), duration(3725), duration(200000)
    ('60 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds is None:
        return ""
    for unit, lesser, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // part:.0f} {lesser}"
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def _trained(run: TrainingRun) -> Iterator[str]:
    held, model, data = run.manifest, run.manifest["model"], run.manifest["data"]
    size = f" ({model['parameters'] / MILLION:.3g} M parameters)" if "parameters" in model else ""
    on = f" on the {_thousands(data['images'])} images" if "images" in data else ""
    of = f" of {data['label']}" if on and data.get("label") else ""
    subject = model.get("architecture", "a model")
    yield f"{held.get('title') or held['objective']}: {subject}{size}, trained{on}{of}."
    epochs = f"{held['step'] / held['steps_per_epoch']:.4g}"
    done = f"{_thousands(held['step'])} updates of {_count(held['batch_size'], 'image')}"
    span = f"{epochs} epoch{'' if epochs == '1' else 's'}, {done}"
    if held["status"] == "finished":
        yield f"{STOOD['finished']}: {span}."
        return
    whole = f"{held['steps'] / held['steps_per_epoch']:.4g}"
    yield f"{STOOD[held['status']]}, after {span} (planned: {whole} epochs)."


def _loss(run: TrainingRun) -> Iterator[str]:
    held = run.scalars.dropna(subset=["loss_smooth"])
    if held.empty:
        yield "No loss was logged yet." if run.scalars.empty else "No loss was a finite number."
        return
    first, last = _first(held), _last(held)
    if len(held) == 1:
        yield f"The loss was {_digits(first['loss'])} at epoch {first['epoch']:.4g}."
        return
    went = "fell" if last["loss_smooth"] < first["loss_smooth"] else "rose"
    yield (
        f"The loss {went} from {_digits(first['loss'])} (epoch {first['epoch']:.3g}) to "
        f"{_digits(last['loss_smooth'])} (running mean, epoch {last['epoch']:.4g})."
    )


def _scores(run: TrainingRun) -> Iterator[str]:
    table = run.tables["scores"]
    for name, value in _best_known(run).items():
        each = list(rows(table.loc[table["quantity"] == name]))
        earlier = f" (epoch {each[0].epoch:.4g}: {_percent(each[0].value)})" * (len(each) > 1)
        yield f"{SCORED[name]} {_percent(value)} at epoch {each[-1].epoch:.4g}{earlier}."


def _best_known(run: TrainingRun) -> dict[str, float]:
    """Return the last value of every score that has a name for readers."""
    table = run.tables["scores"]
    last = {row.quantity: float(row.value) for row in rows(table)}
    return {name: last[name] for name in NAMES if name in last}


def _first(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(k): v for k, v in frame.iloc[0].items()} if len(frame) else {}


def _last(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(k): v for k, v in frame.iloc[-1].items()} if len(frame) else {}


def _digits(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.4g}"


def _percent(value: float) -> str:
    """Return a part of one as a percentage; what is no part of one as it is."""
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:.4g}"


def _thousands(value: int | None) -> str:
    return "" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
