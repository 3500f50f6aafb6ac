"""What a study consists of: which runs, where each lies, and what each is configured to do."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomlkit

from attnprobe.errors import AttnprobeError
from attnprobe.reproduction.budgets import Budget
from attnprobe.reproduction.budgets.tables import laid

FILE = "study.toml"
ORDER = ("mocov3", "simmim", "supervised", "mae")  # the longest first, so that none is waited for
SHARE_OF_WARMUP = 0.1


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        out: Its folder.
        budget: What it may cost.
        data: Labelled training images.
        val: Labelled held-out images, which are measured too.
        count: Number of training images.
        tested: Number of held-out images.
    """

    out: Path
    budget: Budget
    data: str
    val: str
    count: int
    tested: int = 0

    def runs(self) -> list[tuple[str, int]]:
        """Return method and seed of every training, the first seeds first."""
        seeds = self.budget.seeds
        return [
            (method, seed)
            for seed in range(max(seeds.values()))
            for method in ORDER
            if seed < seeds.get(method, 0)
        ]

    def finetunings(self) -> list[tuple[str, int, int]]:
        """Return method, seed and dropped blocks of every fine-tuning."""
        return [
            (method, seed, dropped)
            for method, seed in self.runs()
            for dropped in self.budget.dropped
            if dropped == 0 or method in self.budget.drops
        ]

    def training(self, method: str, seed: int) -> Path:
        """Return the folder of a training run."""
        return self.out / "trainings" / f"{method}-seed{seed}"

    def analysis(self, method: str, seed: int) -> Path:
        """Return the folder of the result of a trained encoder."""
        return self.out / "analyses" / f"{method}-seed{seed}-epoch{self.budget.epochs[method]}"

    def finetuning(self, method: str, seed: int, dropped: int) -> Path:
        """Return the folder of a fine-tuning run."""
        return self.out / "finetunings" / f"{method}-seed{seed}-drop{dropped}"

    def text(self) -> str:
        """Return study.toml: everything that decides the study."""
        held = {"data": self.data, "val": self.val, "count": self.count, **asdict(self.budget)}
        del held["workers"]  # which changes no number
        return tomlkit.dumps(held)


def training_config(study: Study, method: str, seed: int, *, workers: int) -> str:
    """Return the config.toml of a training run."""
    budget, epochs = study.budget, study.budget.epochs[method]
    batch = budget.training["loop"]["batch_size"]
    updates = epochs * max(study.count // batch, 1)
    tables = laid(budget.training, budget.methods.get(method, {}))
    own = {
        "objective": method,
        "loop": {"epochs": epochs, "seed": seed},
        "schedule": {"warmup_epochs": SHARE_OF_WARMUP * epochs},
        "watch": {
            "probe_images": study.val,
            "probe_limit": min(128, budget.images),
            "probe_every": max(updates // budget.probes, 1),
            "trackers": [],
        },
        "save": {"name": f"{method}, seed {seed}"},
    }
    workers *= budget.workers.get(method, 1)
    return tomlkit.dumps(laid(tables, own, _images(study, workers)))


def finetuning_config(study: Study, method: str, seed: int, dropped: int, *, workers: int) -> str:
    """Return the config.toml of a fine-tuning run.

    Raises:
        AttnprobeError: No block would be left.
    """
    budget, epochs = study.budget, study.budget.finetune_epochs
    depth = budget.training["model"]["model_args"]["depth"]
    if dropped >= depth:  # before anything is trained, not after it
        raise AttnprobeError(f"{dropped} of {depth} blocks cannot be dropped", "drop fewer of them")
    own = {
        "objective": "supervised",
        "model": {
            "init": str(study.training(method, seed) / "checkpoint.safetensors"),
            "drop_last": dropped,
        },
        "loop": {"epochs": epochs, "seed": seed},
        "schedule": {"warmup_epochs": SHARE_OF_WARMUP * epochs},
        "watch": {"probe_every": 0, "trackers": []},
        "save": {"name": f"{method}, seed {seed}, {dropped} blocks dropped, fine-tuned"},
    }
    tables = laid(budget.training, budget.finetuning, budget.finetunings.get(method, {}))
    return tomlkit.dumps(laid(tables, own, _images(study, workers)))


def _images(study: Study, workers: int) -> dict[str, Any]:
    return {"data": {"data": study.data, "val": study.val, "workers": workers}}
