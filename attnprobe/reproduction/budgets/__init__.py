"""How much a study may cost: one TOML file a budget. Torch-free.

A file begins with comment lines `# Model: ...`, `# Cost: ...`.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnprobe.errors import AttnprobeError

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
    workers: dict[str, int] = field(default_factory=dict)


def names() -> tuple[str, ...]:
    """Names of all budgets."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def load(name: str) -> Budget:
    """Return a budget.

    Raises:
        AttnprobeError: There is none of that name.
    """
    if name not in names():
        raise AttnprobeError(f"unknown budget {name!r}", f"choose one of: {', '.join(names())}")
    text = (_HERE / f"{name}.toml").read_text(encoding="utf-8")
    said = {key.lower(): re.sub(r"\n#\s+", " ", value) for key, value in _LINE.findall(text)}
    return Budget(name=name, **said, **tomllib.loads(text))
