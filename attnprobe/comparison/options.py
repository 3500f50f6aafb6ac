"""How to compare: the settings of a comparison, plain values only."""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnprobe.errors import AttnprobeError

FEWEST_RESAMPLES, MOST_RESAMPLES = 1000, 1_000_000
KINDS: dict[str, Any] = {
    "confidence": (int, float),
    "resamples": int,
    "permutations": int,
    "seed": int,
    "match_heads": bool,
    "thresholds": dict,
}


@dataclass(frozen=True)
class CompareOptions:
    """How to compare; saved beside the comparison and accepted back.

    Attributes:
        confidence: Coverage of every interval.
        resamples: Bootstrap draws.
        permutations: Sign patterns of the permutation test.
        seed: Seed of both.
        match_heads: Also pair the heads of aligned layers by optimal assignment.
        thresholds: Values of claims' thresholds that differ from their defaults, by name.
    """

    confidence: float = 0.95
    resamples: int = 4000
    permutations: int = 10_000
    seed: int = 0
    match_heads: bool = False
    thresholds: dict[str, float] = field(default_factory=dict)

    def draws(self) -> dict[str, Any]:
        """Return the arguments that `statistics.interval` takes."""
        return {"resamples": self.resamples, "seed": self.seed, "confidence": self.confidence}

    def flat(self) -> dict[str, Any]:
        """Return every setting by name.

        >>> CompareOptions().flat()["confidence"]
        0.95
        """
        return asdict(self)


def check_options(options: CompareOptions) -> None:
    """Refuse settings that would make intervals meaningless.

    Raises:
        AttnprobeError: The confidence is no share, or there are too few draws.
    """
    for name, kind in KINDS.items():
        value = getattr(options, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise AttnprobeError(f"{name} cannot be {value!r:.60}", "give the option its own kind")
    if not 0.5 <= options.confidence < 1:
        raise AttnprobeError(
            f"a confidence of {options.confidence} is no coverage of an interval",
            "choose a number from 0.5 to below 1, such as 0.95",
        )
    if options.seed < 0 or max(options.resamples, options.permutations) > MOST_RESAMPLES:
        raise AttnprobeError(
            f"{options.resamples} bootstrap draws, {options.permutations} permutations and seed "
            f"{options.seed} are beyond what is tried",
            f"use at most {MOST_RESAMPLES} of each, and a seed of 0 or more",
        )
    if options.resamples < FEWEST_RESAMPLES or options.permutations < FEWEST_RESAMPLES:
        raise AttnprobeError(
            f"{options.resamples} bootstrap draws and {options.permutations} permutations are "
            "too few",
            f"use {FEWEST_RESAMPLES} or more of each",
        )
