"""How much a study may cost: one TOML file a budget. Torch-free.

A shipped file begins with comment lines `# Model: ...`, `# Cost: ...`. A file of one's own names
the budget that it changes, and says what is different:

    base = "cpu"
    [epochs]
    supervised = 12
    [training.model]
    patch_size = 8
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from attnprobe.errors import AttnprobeError
from attnprobe.reproduction.budgets import own

_HERE = Path(__file__).parent
_LINE = re.compile(r"^# (Model|Cost): (.*(?:\n#   .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Budget:
    """Everything that decides what a study computes, beside its images.

    Attributes:
        name: The file's name.
        model: What is trained, in words.
        cost: What it takes, in words.
        images: Held-out images that are measured.
        probes: How often attention is measured on the way.
        seeds: Runs of each method.
        epochs: Epochs of each method.
        finetune_epochs: Epochs of each fine-tuning.
        dropped: Numbers of last blocks that are removed before fine-tuning, 0 among them.
        drops: Methods whose last blocks are removed.
        training: Nested tables that all trainings share, as in their config.toml.
        methods: What each method adds to them.
        finetuning: What fine-tuning adds to them.
        finetunings: What fine-tuning the encoder of one method adds to that.
        workers: How many times the decoding processes of others a method gets; 1 if not named.
    """

    name: str
    model: str
    cost: str
    images: int
    probes: int
    seeds: dict[str, int]
    epochs: dict[str, int]
    finetune_epochs: int
    dropped: list[int]
    drops: list[str]
    training: dict[str, Any]
    methods: dict[str, Any]
    finetuning: dict[str, Any]
    finetunings: dict[str, Any] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)

    def check_methods(self, methods: Sequence[str]) -> None:
        """Refuse methods that it does not train.

        Raises:
            AttnprobeError: There is one.
        """
        known = [method for method, count in self.seeds.items() if count]
        for method in methods:
            if method not in known:
                raise AttnprobeError(
                    f"budget {self.name} has no method {method!r}", f"choose of: {', '.join(known)}"
                )


def names() -> tuple[str, ...]:
    """Names of all budgets."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def load(name: str) -> Budget:
    """Return a budget.

    Args:
        name: One of `names()`, or the path of a TOML file that changes one of them.

    Raises:
        AttnprobeError: There is none of that name, or the file is no budget.
    """
    if name.endswith(".toml"):
        return Budget(**own.read(Path(name), lambda base: asdict(load(base)), names()))
    if name not in names():
        raise AttnprobeError(
            f"unknown budget {name!r}", f"choose one of: {', '.join(names())}, or give a TOML file"
        )
    text = (_HERE / f"{name}.toml").read_text(encoding="utf-8")
    said = {key.lower(): re.sub(r"\n#\s+", " ", value) for key, value in _LINE.findall(text)}
    return Budget(name=name, **said, **tomllib.loads(text))


def narrowed(
    budget: Budget, *, methods: Sequence[str] = (), seeds: int = 0, epochs: int = 0
) -> Budget:
    """Return a budget of some of its methods, of so many seeds and epochs each.

    Args:
        budget: What is changed.
        methods: Names of methods; all of the budget's if empty.
        seeds: Trainings of each method; as the budget says if 0.
        epochs: Epochs of each training, but not of fine-tuning; as the budget says if 0.

    Raises:
        AttnprobeError: The budget has no such method.
    """
    budget.check_methods(methods)
    kept = [m for m, count in budget.seeds.items() if count and m in (methods or budget.seeds)]
    return replace(
        budget,
        seeds={m: (seeds or count) if m in kept else 0 for m, count in budget.seeds.items()},
        epochs={m: epochs or count for m, count in budget.epochs.items()},
        drops=[method for method in budget.drops if method in kept],
    )
