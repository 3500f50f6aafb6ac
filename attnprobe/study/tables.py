"""The numbers of a study as tables: accuracies, dropped blocks, emergence, recipes, timings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attnprobe.study import intervals
from attnprobe.study.accuracies import by_seed, changes
from attnprobe.study.emergence import emergence
from attnprobe.study.findings import findings
from attnprobe.study.folder import Run, Study
from attnprobe.study.missing import missing
from attnprobe.study.settings import METHODS, SCORES

FINETUNING = "finetuning"  # stands where tables of recipes have a method
DIGITS = 6  # decimals of an accuracy in a list of them


@dataclass(frozen=True)
class Summary:
    """A study and its tables.

    Attributes:
        study: The study.
        tables: `findings` (see `findings`); `accuracies` and `drops` (method, score or dropped,
            value (mean over seeds), low, high, seeds, by_seed, images); `emergence` (method, seed,
            epoch, metric, value, low, high); `recipes` (method, setting, value); `timings` (step,
            seconds, device, precision); `versions` (package, version); `missing` (step, state).
    """

    study: Study
    tables: dict[str, pd.DataFrame]

    @property
    def order(self) -> tuple[str, ...]:
        """Methods in the order of colours: those with results first, as figures have them."""
        held = [method for method in self.study.methods if self.study.results(method)]
        return tuple(dict.fromkeys((*held, *self.study.methods)))


def summarise(study: Study) -> Summary:
    """Judge the statements and put together every table, as far as the study has come."""
    return Summary(
        study,
        {
            "findings": findings(study),
            "accuracies": _frame(ACCURACIES, _accuracies(study)),
            "drops": _frame(DROPS, _drops(study)),
            "emergence": emergence(study),
            "recipes": _frame(["method", "setting", "value"], _recipes(study)),
            "timings": _frame(["step", "seconds", "device", "precision"], _timings(study)),
            "versions": _frame(["package", "version"], _versions(study)),
            "missing": missing(study),
        },
    )


SEEDED = ["value", "low", "high", "seeds", "by_seed", "images"]
ACCURACIES = ["method", "score", *SEEDED]
CHANGES = ["change", "change_low", "change_high"]
DROPS = ["method", "dropped", *SEEDED, *CHANGES]


def _frame(columns: list[str], rows: Iterator[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns)


def _accuracies(study: Study) -> Iterator[dict[str, Any]]:
    for method in study.methods:
        for score in SCORES:
            rows = by_seed(study, method, score)
            if len(rows):
                yield {"method": method, "score": score} | _seeded(rows)


def _drops(study: Study) -> Iterator[dict[str, Any]]:
    """Yield each fine-tuned accuracy, and its change from that with all blocks, seed by seed.

    A method of which nothing was dropped yet has no rows: its accuracy stands among the others.
    """
    numbers = sorted(number for number in study.settings["dropped"] if number > 0)
    for method in study.settings["drops"]:
        _, values = changes(study, method)
        each = [values.mean(0), *intervals.of_mean(values)] if len(values) else []
        known = dict(zip(numbers, zip(*each, strict=True), strict=False))
        found = {n: by_seed(study, method, "finetuned", n) for n in (0, *numbers)}
        if not any(len(found[number]) for number in numbers):
            continue
        for dropped, rows in found.items():
            if len(rows):
                told = zip(CHANGES, known.get(dropped, (np.nan,) * 3), strict=True)
                yield {"method": method, "dropped": dropped, **_seeded(rows), **dict(told)}


def _seeded(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the mean over seeds of an accuracy with its interval, and each seed's."""
    values = rows["value"].to_numpy(float)
    low, high = intervals.of_mean(values)
    images = rows["images"].dropna().unique()
    return {
        "value": values.mean(),
        "low": float(low),
        "high": float(high),
        "seeds": len(values),
        "by_seed": ", ".join(f"{value:.{DIGITS}g}" for value in values),
        "images": int(images[0]) if len(images) == 1 else None,
    }


def _recipes(study: Study) -> Iterator[dict[str, Any]]:
    """Yield the settings of each method's first training that began, in the order of the page."""
    for method in study.methods:
        run = next((r for r in study.runs if r.method == method and r.training), None)
        if run is not None:
            settings = {"seeds": sum(r.method == method for r in study.runs), **_settings(run)}
            for name, value in settings.items():
                yield {"method": method, "setting": name, "value": plain(value)}
    for name, value in _of_finetuning(study.settings).items():
        yield {"method": FINETUNING, "setting": name, "value": plain(value)}


def _settings(run: Run) -> dict[str, Any]:
    if run.training is None:
        return {}
    held, config = run.training.manifest, run.training.config
    own = {
        "updates": held["steps"],
        "images of an update": held["batch_size"],
        "encoder parameters": held["model"].get("parameters"),
        "precision": held.get("precision"),
    }
    return {"epochs": _part(config, "loop").get("epochs"), **own, **_options(config, run.method)}


def _of_finetuning(held: dict[str, Any]) -> dict[str, Any]:
    """Return what study.toml says of fine-tuning; what it does not say is as trainings have it."""
    laid = {
        name: {**_part(_part(held, "training"), name), **_part(_part(held, "finetuning"), name)}
        for name in ("loop", "optimizer", "schedule", "model", "supervised")
    }
    epochs = held.get("finetune_epochs")
    images = laid["loop"].get("batch_size")
    told = {"epochs": epochs, "images of an update": images, **_options(laid, "supervised")}
    told["pooling of single methods"] = _pooling(_part(held, "finetunings")) or None
    return told if epochs else {}


def _pooling(held: dict[str, Any]) -> dict[str, Any]:
    """Return what is classified by name of the method, where study.toml says it of one."""
    found = {
        METHODS[method]: _part(_part(_part(held, method), "model"), "model_args").get("global_pool")
        for method in held
        if method in METHODS
    }
    return {name: how for name, how in found.items() if how}


def _options(config: dict[str, Any], objective: str) -> dict[str, Any]:
    """Return the options that set a recipe apart, the objective's own among them."""
    parts = {name: _part(config, name) for name in ("loop", "optimizer", "schedule", "model")}
    rate = parts["optimizer"]
    return {
        "optimizer": rate.get("opt"),
        "learning rate": f"{rate.get('lr')} for {rate.get('lr_batch')} images",
        "schedule": parts["schedule"].get("sched"),
        "warm-up epochs": parts["schedule"].get("warmup_epochs"),
        **{name: rate.get(name) for name in ("betas", "weight_decay", "layer_decay")},
        "clip_grad": parts["loop"].get("clip_grad"),
        "drop_path": parts["model"].get("drop_path"),
        **_part(config, objective),  # masks, views, augmentation
    }


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def plain(value: Any) -> str:
    """Return a setting as text.

    >>> plain([0.9, 0.95]), plain({"a": 1}), plain(1 / 3), plain(None)
    ('0.9, 0.95', 'a = 1', '0.333333', '')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "" if value is None else str(value)


def _timings(study: Study) -> Iterator[dict[str, Any]]:
    """Yield what each step took; a training under way says what it took so far."""
    known: dict[str, float] = dict(study.timings.itertuples(index=False, name=None))
    facts = dict(_machines(study.runs))
    for step in {**known, **facts}:
        told = facts.get(step, {})
        yield {"step": step, **told, "seconds": known.get(step, told.get("seconds"))}


def _machines(runs: Sequence[Run]) -> Iterator[tuple[str, dict[str, Any]]]:
    for run in runs:
        if run.training is not None:
            held = run.training.manifest
            told = {name: held.get(name) for name in ("seconds", "device", "precision")}
            yield f"trainings/{run.method}-seed{run.seed}", told
        if run.result is not None and run.result.provenance.device:
            made = run.result.provenance
            told = {"seconds": made.seconds, "device": made.device, "precision": made.precision}
            yield f"analyses/{run.method}-seed{run.seed}-epoch{run.epochs}", told


def _versions(study: Study) -> Iterator[dict[str, Any]]:
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        held = run.training.manifest.get("versions", {}) if run.training else {}
        for name, version in held.items():
            found.setdefault(name, {})[version] = None
    for name, versions in found.items():
        yield {"package": name, "version": ", ".join(versions)}
