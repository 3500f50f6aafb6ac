"""A study in plain words: what was trained on what, how far it is, and how its verdicts fall."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from attnprobe.report.trainsummary import duration
from attnprobe.study import Summary, judging
from attnprobe.study.folder import PROBES
from attnprobe.study.missing import planned
from attnprobe.study.settings import METHODS
from attnprobe.study.statements import PAPER

MARKS = {
    judging.HOLDS: "yes",
    judging.ONE_HOLDS: "yes",
    judging.FAILS: "no",
    judging.ONE_FAILS: "no",
}
THIN = "\N{NARROW NO-BREAK SPACE}"


def sentences(summary: Summary) -> list[str]:
    """Return paragraphs: what was trained and measured, how many statements hold, a caution."""
    return [" ".join(_trained(summary)), " ".join(_verdicts(summary)), *_caution(summary)]


def facts(summary: Summary) -> list[tuple[str, Any]]:
    """Return the headline facts that are known."""
    study = summary.study
    held = study.settings
    done = planned(study) - len(summary.tables["missing"])
    seconds = float(np.nansum(summary.tables["timings"]["seconds"].to_numpy(float)))
    found = [
        ("Budget", held.get("name")),
        ("Training images", _thousands(held.get("count"))),
        ("Images measured", _measured(summary)),
        ("Steps done", f"{done} of {planned(study)}"),
        ("Time of all steps", duration(seconds) if seconds > 0 else ""),
        ("Device", ", ".join(_devices(summary))),
    ]
    return [(term, str(value)) for term, value in found if value]


def notes(summary: Summary) -> list[str]:
    """Return what a reader has to know: parts that stand in for others, and what is damaged."""
    study = summary.study
    found = []
    if study.source == PROBES:
        found.append(
            "Not every trained encoder has been analysed yet. Until then figures and verdicts are "
            "of the last probe of each finished training, which is of fewer images."
        )
    return found + [f"{run.name}: {text}" for run in study.runs for text in run.trouble]


def verdict_counts(summary: Summary, *, papers: bool) -> list[tuple[str, int]]:
    """Return every verdict on statements of the paper, or on others, with their number."""
    table = summary.tables["findings"]
    given = table.loc[table["place"].str.startswith(PAPER) == papers, "verdict"].tolist()
    return [(name, given.count(name)) for name in judging.VERDICTS if name in given]


def _trained(summary: Summary) -> Iterator[str]:
    study = summary.study
    held = study.settings
    each = [_method(summary, method) for method in study.methods]
    model = held.get("model", "one vision transformer")
    count = f"the {_thousands(held['count'])} images of " if "count" in held else ""
    yield f"One architecture ({model}) was trained by {_listed(each)}."
    yield f"All of them saw {count}{_set(held.get('data', 'one set'))}."
    if images := _measured(summary):
        val = _set(held.get("val", "the set"))
        yield f"Attention was measured on {images} held-out images of {val}."
    if tuned := held.get("finetune_epochs"):
        yield (
            f"Every encoder is then fine-tuned with labels for {_count(tuned, 'epoch')}"
            f"{_without(held)}."
        )


def _without(held: dict[str, Any]) -> str:
    """Return which encoders lose how many blocks before they are fine-tuned."""
    drops = ["the supervised one" if m == "supervised" else METHODS[m] for m in held["drops"]]
    numbers = [number for number in held["dropped"] if number > 0]
    if not drops or not numbers:
        return ""
    blocks = "block" if numbers == [1] else f"{_listed(numbers, 'or')} blocks"
    return f", {_listed(drops)} also without the last {blocks}"


def _set(named: Any) -> str:
    """Return a set of images by its own name, whatever folder it lies in."""
    return str(named).replace("\\", "/").rstrip("/").rpartition("/")[2]


def _method(summary: Summary, method: str) -> str:
    runs = [run for run in summary.study.runs if run.method == method]
    done = sum(run.finished for run in runs)
    name = "supervision" if method == "supervised" else METHODS[method]
    so_far = "" if done == len(runs) else f", {done} finished"
    return f"{name} ({_count(runs[0].epochs, 'epoch')}, {_count(len(runs), 'seed')}{so_far})"


def _verdicts(summary: Summary) -> Iterator[str]:
    for papers, whose in ((True, "of the paper"), (False, "that are not the paper's")):
        counts = dict(verdict_counts(summary, papers=papers))
        told = [f"{number} {VERBS[name][number != 1]}" for name, number in counts.items()]
        if told:
            yield f"Of {sum(counts.values())} statements {whose}, {_listed(told)}."


VERBS = {
    judging.HOLDS: ("holds", "hold"),
    judging.ONE_HOLDS: ("holds for one seed", "hold for one seed"),
    judging.FAILS: ("does not hold", "do not hold"),
    judging.ONE_FAILS: ("does not hold for one seed", "do not hold for one seed"),
    judging.OPEN: ("is not decided", "are not decided"),
    judging.ABSENT: ("has not been measured", "have not been measured"),
}


def _caution(summary: Summary) -> Iterator[str]:
    if len(summary.tables["findings"].query("verdict != @judging.ABSENT")):
        yield (
            "The paper's models are larger and were trained on ImageNet for hundreds of epochs. "
            "A statement that fails here may still be true of them, and one that holds here is "
            "shown for this model and this training alone."
        )


def _measured(summary: Summary) -> str:
    counts = {result.provenance.images for result in summary.study.first()}
    return ", ".join(map(str, sorted(counts)))


def _devices(summary: Summary) -> list[str]:
    named = summary.tables["timings"]["device"].dropna().tolist()
    return list(dict.fromkeys(map(str, named)))


def _listed(words: list[Any], last: str = "and") -> str:
    """Join words as a sentence does.

    >>> _listed(["a", "b", "c"]), _listed([2, 4], "or"), _listed(["a"])
    ('a, b and c', '2 or 4', 'a')
    """
    texts = [str(word) for word in words]
    return (
        f" {last} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
    )


def _thousands(value: Any) -> str:
    return f"{value:,}".replace(",", THIN) if isinstance(value, int) else ""


def _count(number: Any, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
