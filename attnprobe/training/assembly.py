"""Put a run together: images, backbone, objective, optimiser, schedule, accelerate."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from attnprobe.datasets import Pictures, TrainSet, open_pictures
from attnprobe.errors import AttnprobeError
from attnprobe.evaluation import common_classes
from attnprobe.objectives import Framing, Objective
from attnprobe.objectives import load as load_objective
from attnprobe.training import backbones, initialising, machine, schedules
from attnprobe.training.config import TrainingConfig
from attnprobe.training.progress import Progress
from attnprobe.types import CheckpointSpec, LoadLedger

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Run:
    """One training run in one process.

    Attributes:
        config: What decides it.
        out: Its folder.
        objective: What it trains for.
        pictures: Training images.
        validation: Labelled images for the evaluation, or None.
        dataset: Training images as views.
        spec: What the checkpoint will be.
        framing: What views know about the model.
        plain: The trainable module itself.
        module: The same as accelerate wraps it.
        optimizer: As accelerate wraps it.
        schedule: timm's, by update.
        accelerator: Devices, processes, precision.
        steps: Updates of the run.
        steps_per_epoch: Updates of one epoch.
        ema: The averaged encoder, or None.
        ledger: What `--init` filled, or None.
        progress: How far it is.
    """

    config: TrainingConfig
    out: Path
    objective: Objective
    pictures: Pictures
    validation: Pictures | None
    dataset: TrainSet
    spec: CheckpointSpec
    framing: Framing
    plain: nn.Module
    module: Any
    optimizer: Any
    schedule: Scheduler
    accelerator: "Accelerator"
    steps: int
    steps_per_epoch: int
    ema: ModelEmaV3 | None = None
    ledger: LoadLedger | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.progress.step / self.steps_per_epoch

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.accelerator.is_main_process


def assemble(
    config: TrainingConfig, out: Path, accelerator: "Accelerator", *, trust: bool = False
) -> Run:
    """Build everything a run needs, with weights drawn from its seed.

    Raises:
        AttnprobeError: Images, model or options cannot be used.
    """
    objective = load_objective(config.objective)
    pictures, validation = _images(config, objective)
    module, spec, framing = _module(config, objective, pictures)
    spec = replace(spec, name=config.save.name or out.resolve().name)
    ledger = _initialise(config, objective.encoder(module), module, trust=trust)
    per_epoch = _steps_per_epoch(config, pictures)
    steps = config.loop.epochs * per_epoch
    machine.choose_kernels(config, accelerator)
    if config.model.compile:
        module.compile()
    optimizer = schedules.optimizer_of(module, config, decay_biases=objective.decay_biases)
    schedule = schedules.schedule_of(optimizer, config, steps=steps, steps_per_epoch=per_epoch)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    views = objective.views(config.options, framing)
    run = Run(
        config=config,
        out=out,
        objective=objective,
        pictures=pictures,
        validation=validation,
        dataset=TrainSet(pictures, views, seed=config.loop.seed, cache=config.data.cache),
        spec=spec,
        framing=framing,
        plain=accelerator.unwrap_model(wrapped, keep_torch_compile=False),
        module=wrapped,
        optimizer=optimizer,
        schedule=schedule,
        accelerator=accelerator,
        steps=steps,
        steps_per_epoch=per_epoch,
        ledger=ledger,
        progress=Progress(accelerator.process_index, accelerator.num_processes),
    )
    _average(run)
    accelerator.register_for_checkpointing(run.progress)
    return run


def _images(config: TrainingConfig, objective: Objective) -> tuple[Pictures, Pictures | None]:
    """Open the training images and, if there are any, those of the evaluation."""
    pictures = _open(config, config.data.data, "train")
    if objective.labelled and pictures.labels is None:
        raise AttnprobeError(
            f"{config.data.data} has no labels, which {objective.name} needs",
            "give a folder with one sub-folder a class, or a labelled set",
        )
    if not config.data.val:
        return pictures, None
    validation = _open(config, config.data.val, "val")
    common_classes(pictures, validation)  # before the training, not after it
    return pictures, validation


def _module(
    config: TrainingConfig, objective: Objective, pictures: Pictures
) -> tuple[nn.Module, CheckpointSpec, Framing]:
    """Build the trainable module around a backbone, with weights drawn from the seed."""
    classes = len(pictures.classes) if objective.labelled else 0
    backbone = backbones.create(config, classes=classes)
    spec = backbones.described(backbone, config)
    framing = Framing(
        size=(spec.input_size[1], spec.input_size[2]),
        patch=backbones.patch_size(backbone),
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        classes=classes,
    )
    return objective.build(backbone, config.options, framing), spec, framing


def _average(run: Run) -> None:
    """Start the average of the encoder's weights, if one is asked for."""
    decay = run.config.loop.ema
    if not decay:
        return
    if run.accelerator.distributed_type.value == "FSDP":
        raise AttnprobeError("averaged weights cannot be sharded", "set --ema 0 under FSDP")
    run.ema = ModelEmaV3(run.objective.encoder(run.plain), decay=decay)
    run.accelerator.register_for_checkpointing(run.ema)


def _initialise(
    config: TrainingConfig, encoder: nn.Module, module: nn.Module, *, trust: bool
) -> LoadLedger | None:
    """Fill the encoder, and a slow copy of it, from a checkpoint."""
    if not config.model.init:
        return None
    section = config.model
    ledger = initialising.initialise(
        encoder, section.init, drop_last=section.drop_last, trust=trust
    )
    slow: Any = getattr(module, "momentum_encoder", None)
    if slow is not None:
        slow.load_state_dict(encoder.state_dict())
    return ledger


def _open(config: TrainingConfig, source: str, split: str) -> Pictures:
    section = config.data
    return open_pictures(source, split=split, root=section.data_dir, download=section.download)


def _steps_per_epoch(config: TrainingConfig, pictures: Pictures) -> int:
    steps = len(pictures) // config.loop.batch_size
    if not steps:
        raise AttnprobeError(
            f"{pictures.label} has {len(pictures)} images, fewer than one batch of "
            f"{config.loop.batch_size}",
            f"set --batch-size to {len(pictures)} or less",
        )
    return steps
