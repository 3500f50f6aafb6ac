"""Claims: one file each; a statement about a model, or about two, that numbers can carry.

A claim turns per-image values into a quantity with an interval. It is *supported* where the whole
interval lies on the claimed side of a limit, *contradicted* where it lies on the other side, and
*not decided* otherwise. What it takes and where the limits lie is in each file and can be changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attnprobe import plugins
from attnprobe.errors import AttnprobeError
from attnprobe.results import Result
from attnprobe.statistics import MEAN, Statistic

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
MARGIN = "_margin"
LARGEST = 1e9
Thresholds = dict[str, float]


@dataclass(frozen=True)
class Quantity:
    """What a claim judges, as a function of means over images.

    Attributes:
        samples: Per-image values, [images, ...].
        of_means: Maps means [draws, ...] to judged values [draws, parts].
        parts: What each judged value is about, such as "layer 3"; one empty text for a whole.
        summary: Maps judged values [draws, parts] to the one that models are compared by, [draws].
        statistic: Bounds of the values: fewest images, largest value, valid draws.
        size: Magnitude of the values behind a difference, which tells how finely it is measured.
    """

    samples: np.ndarray
    of_means: Callable[[np.ndarray], np.ndarray]
    parts: tuple[str, ...]
    summary: Callable[[np.ndarray], np.ndarray] = lambda values: values.mean(1)
    statistic: Statistic = MEAN
    size: float = 0.0

    @property
    def judged(self) -> Statistic:
        """What turns means over images into the judged values."""
        return replace(self.statistic, of_means=self.of_means)

    def estimate(self) -> np.ndarray:
        """Return the judged values themselves, [parts]."""
        return self.of_means(self.samples.mean(0, keepdims=True))[0]


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        name: Public name; equal to the file name.
        title: A few words for headings.
        needs: Per-image values that results must hold (see `samples`).
        statement: About one model, with {a}; about two, with {a} and {b}, if `between` is set.
        versus: The same claim as a comparison, with {a} and {b}; empty if there is none.
        quantity: What is judged, in words; thresholds by name in braces.
        versus_quantity: What two models are compared by, in words.
        limit: Name of the threshold that the quantity is held against.
        thresholds: Defaults of everything that can be changed, the limit among it.
        below: Whether the quantity has to lie below the limit, rather than above.
        measure: Quantity of one model, or in words why it has none.
        between: Quantity of two models, for claims about a pair alone.
        source: Where the claim comes from.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    statement: str
    quantity: str
    limit: str
    thresholds: Thresholds
    below: bool
    versus: str = ""
    versus_quantity: str = ""
    measure: Callable[[Result, Thresholds], Quantity | str] | None = None
    between: Callable[[Result, Result, Thresholds], Quantity | str] | None = None
    source: str = "Xie et al. 2023"


def names() -> tuple[str, ...]:
    """Names of all claims, sorted."""
    return plugins.names(__name__)


def load(name: str) -> Claim:
    """Return a claim by name.

    >>> load("local_everywhere").limit
    'local'
    """
    return plugins.load(__name__, name, "CLAIM")


def defaults() -> Thresholds:
    """Return every threshold of every claim, margins included.

    A margin is the least difference between two models that counts, in the quantity's unit.
    """
    found: Thresholds = {}
    for claim in map(load, names()):
        found |= claim.thresholds
        if claim.versus:
            found[claim.limit + MARGIN] = 0.0
    return found


def thresholds(changes: dict[str, Any]) -> Thresholds:
    """Return all thresholds with some of them changed.

    Raises:
        AttnprobeError: A name is unknown or a value is no finite number.
    """
    known = defaults()
    for name, value in changes.items():
        if name not in known:
            raise AttnprobeError(
                f"unknown threshold {name!r}", f"choose one of: {', '.join(sorted(known))}"
            )
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < LARGEST:
            raise AttnprobeError(f"the threshold {name} cannot be {value!r}", "give a number")
    return known | {name: float(value) for name, value in changes.items()}


def third(count: int) -> int:
    """Return how many of `count` layers are the first or last third, at least one.

    >>> third(12), third(4), third(1)
    (4, 1, 1)
    """
    return max(1, round(count / 3))
