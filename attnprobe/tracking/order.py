"""When each checkpoint of a training run was saved: what it says, or what its name says."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnprobe.errors import ResultError

# what the numbers in a name count, by the word before them
WORDS = (
    ("epoch", re.compile(r"(?:^|[^a-z])ep(?:och)?s?[^a-z0-9]*\d", re.IGNORECASE)),
    ("iteration", re.compile(r"iter(?:ation)?s?[^a-z0-9]*\d", re.IGNORECASE)),
    ("step", re.compile(r"")),
)
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Steps:
    """Where checkpoints stand in their training run.

    Attributes:
        values: One number a checkpoint, all different.
        word: What they count: epoch, iteration, step or checkpoint.
        source: Where they come from, in words.
    """

    values: tuple[float, ...]
    word: str
    source: str


def given(values: Iterable[float], names: Sequence[str]) -> Steps:
    """Return steps that a person gave, one for each name.

    Raises:
        ResultError: There are too few or too many, or two are the same.
    """
    steps = tuple(float(value) for value in values)
    if len(steps) != len(names):
        raise ResultError(
            f"{len(steps)} steps were given for {len(names)} checkpoints",
            "give one step a checkpoint, in the same order",
        )
    for at, step in enumerate(steps):
        if not math.isfinite(step):
            raise ResultError(f"{names[at]} cannot stand at step {step}", "give finite numbers")
        if step in steps[:at]:
            first = names[steps.index(step)]
            raise ResultError(
                f"{first} and {names[at]} both stand at step {step:g}",
                "give every checkpoint a step of its own",
            )
    return Steps(steps, "step", "the steps that were given")


def read(epochs: Sequence[float | None], *names: Sequence[str]) -> Steps:
    """Return the steps that checkpoints tell by themselves.

    Args:
        epochs: The epoch that each checkpoint says it was saved after, where it says one.
        *names: Paths or labels, one a checkpoint; several lists are tried in turn.

    >>> read([None, None], ["vit16/ckpt_9.pth", "vit16/ckpt_10.pth"]).values
    (9.0, 10.0)
    """
    told = [epoch for epoch in epochs if epoch is not None]
    if len(told) == len(epochs) and _distinct(told):
        values = tuple(float(epoch) for epoch in told)
        return Steps(values, "epoch", "the epoch that each checkpoint says it was saved after")
    for texts in names:
        if numbers := _numbers(texts):
            word = next(word for word, form in WORDS if all(map(form.search, texts)))
            return Steps(numbers, word, "the numbers in the names of the checkpoints")
    order = tuple(float(number) for number in range(1, len(epochs) + 1))
    told_by = "the order in which they were given, for neither epochs nor names set them apart"
    return Steps(order, "checkpoint", told_by)


def _numbers(names: Sequence[str]) -> tuple[float, ...]:
    """Return the last number of each name that sets the names apart; empty without one.

    In names that differ in their numbers alone, every number is a candidate.
    """
    found = [[float(digits) for digits in DIGITS.findall(name)] for name in names]
    if not all(found):
        return ()
    alike = len({DIGITS.sub("0", name) for name in names}) == 1
    columns = list(zip(*found, strict=True)) if alike else [tuple(row[-1] for row in found)]
    return next((tuple(column) for column in reversed(columns) if _distinct(column)), ())


def _distinct(values: Sequence[float]) -> bool:
    return len(set(values)) == len(values)
