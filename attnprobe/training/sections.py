"""The sections of a training configuration; every field carries its own help. Torch-free."""

from dataclasses import dataclass
from typing import Any

from attnprobe.options import option

OPTIMIZERS = ("adamw", "sgd", "lamb", "lars", "lion", "adafactor", "muon")


@dataclass(frozen=True)
class ModelSection:
    """`[model]`: the backbone, by its timm name."""

    model: str = option("", "Backbone, by its timm name.")
    img_size: int = option(0, "Side of the input in pixels; 0: the model's own.", low=0)
    patch_size: int = option(0, "Side of a patch in pixels; 0: the model's own.", low=0)
    window_size: int = option(0, "Side of a Swin window in patches; 0: the model's own.", low=0)
    drop_path: float = option(0.0, "Stochastic depth of the last block.", low=0.0, high=1.0)
    model_args: dict[str, Any] = option({}, "Another argument of the timm model; repeat.")
    init: str = option("", "Start from this checkpoint's encoder.")
    drop_last: int = option(0, "Leave out so many last blocks of it.", low=0)
    grad_checkpointing: bool = option(False, "Recompute blocks on the way back; saves memory.")
    compile: bool = option(False, "Compile the module with torch.compile.")


@dataclass(frozen=True)
class DataSection:
    """`[data]`: where the images are."""

    data: str = option("", "Folder, .tar shards, .npz of JPEGs, hf:NAME or torch/NAME.")
    val: str = option("", "Labelled images for the evaluation, like --data.")
    data_dir: str = option("", "Where named data sets (torch/cifar10) lie.")
    download: bool = option(False, "Let named data sets be downloaded.")
    workers: int = option(2, "Decoding processes of each training process.", low=0)
    cache: bool = option(False, "Keep decoded images in memory (small sets).")
    mean: list[float] = option([0.485, 0.456, 0.406], "Mean of the normalisation, a channel each.")
    std: list[float] = option([0.229, 0.224, 0.225], "Its standard deviation.", low=0.0)
    interpolation: str = option(
        "bicubic", "Of the evaluation's resize.", choices=("bilinear", "bicubic", "lanczos")
    )


@dataclass(frozen=True)
class LoopSection:
    """`[loop]`: how long, how much at a time, in which precision."""

    epochs: int = option(100, "Passes over the images.", low=1)
    batch_size: int = option(128, "Images of one update, over all processes.", low=1)
    accumulate: int = option(1, "Parts in which an update's batch is taken.", low=1)
    precision: str = option(
        "auto",
        "Of the forward pass; auto is bf16 where the machine has it.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    device: str = option("auto", "auto, cpu or cuda.", choices=("auto", "cpu", "cuda"))
    seed: int = option(0, "Of weights, data order, crops and masks.", low=0, high=2**63 - 1)
    clip_grad: float = option(0.0, "Largest gradient norm; 0: no limit.", low=0.0)
    ema: float = option(0.0, "Decay of an average of the weights; 0: none.", low=0.0, high=0.999999)
    deterministic: bool = option(False, "Refuse kernels that differ from run to run (CUDA).")


@dataclass(frozen=True)
class OptimizerSection:
    """`[optimizer]`: timm's optimisers."""

    opt: str = option("adamw", f"timm optimiser: {', '.join(OPTIMIZERS)}, ...")
    lr: float = option(1.5e-4, "Base learning rate, for a batch of --lr-batch images.", low=0.0)
    lr_batch: int = option(256, "The batch that --lr is for; lr x batch / this is used.", low=1)
    weight_decay: float = option(0.05, "Decoupled weight decay.", low=0.0)
    betas: list[float] = option([0.9, 0.999], "Decay rates of Adam's averages.", low=0.0, high=1.0)
    eps: float = option(1e-8, "Adam's epsilon.", low=0.0)
    layer_decay: float = option(
        1.0, "Learning rate of a layer as a part of the next one's.", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class ScheduleSection:
    """`[schedule]`: timm's learning-rate schedules, by update."""

    sched: str = option(
        "cosine", "Of the learning rate.", choices=("cosine", "multistep", "constant")
    )
    warmup_epochs: float = option(10.0, "Epochs of linear warm-up.", low=0.0)
    warmup_lr: float = option(0.0, "Learning rate it starts from, scaled like --lr.", low=0.0)
    min_lr: float = option(0.0, "Last learning rate of the cosine, scaled like --lr.", low=0.0)
    warmup_prefix: bool = option(True, "The cosine begins after the warm-up, not with it.")
    decay_epochs: list[float] = option([], "Where multistep lowers the learning rate.", low=0.0)
    decay_rate: float = option(0.1, "By which factor.", low=0.0)


@dataclass(frozen=True)
class WatchSection:
    """`[watch]`: what is written down on the way."""

    log_every: int = option(20, "Updates between two lines of metrics.jsonl.", low=1)
    probe_every: int = option(
        -1, "Updates between two probes of the attention; 0: none, -1: 2 % of the time.", low=-1
    )
    probe_images: str = option("bundled", "Images of the probe, like analyze's --images.")
    probe_limit: int = option(64, "How many of them.", low=8)
    eval_every: int = option(0, "Epochs between two evaluations; 0: only at the end.", low=0)
    eval_limit: int = option(10_000, "Training images behind kNN and linear probe.", low=1)
    pictures_every: int = option(0, "Epochs between reconstructions; 0: ten in all.", low=0)
    trackers: list[str] = option(
        ["tensorboard"], "accelerate's trackers, beside metrics.jsonl (wandb, mlflow, ...)."
    )


@dataclass(frozen=True)
class SaveSection:
    """`[save]`: what survives an interruption, and what the card says."""

    save_every: int = option(0, "Updates between two saved states; 0: by the clock.", low=0)
    save_minutes: float = option(5.0, "Minutes between two saved states; 0: never.", low=0.0)
    keep: int = option(2, "Saved states that are kept.", low=1)
    snapshot_every: int = option(
        0, "Epochs between kept encoders, from the untrained one on; 0: none.", low=0
    )
    licence: str = option("", "Licence of the weights, for the model card.")
    name: str = option("", "Label for tables and plots.")


SECTIONS: dict[str, type] = {
    "model": ModelSection,
    "data": DataSection,
    "loop": LoopSection,
    "optimizer": OptimizerSection,
    "schedule": ScheduleSection,
    "watch": WatchSection,
    "save": SaveSection,
}
# what a run may change when it is resumed: nothing here touches a number of the training
FREE = frozenset(
    {
        *("workers", "cache", "data_dir", "download", "device", "accumulate"),
        *("trackers", "save_every", "save_minutes", "keep", "licence"),
    }
)
