"""Torch-free nouns shared by every layer, so that results can be read without torch."""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnprobe.grids import TokenGrid as TokenGrid

SCHEMA_VERSION = 1
MASKED = "; of masked images: "  # in a definition, before what was hidden of them


@dataclass(frozen=True)
class LayerInfo:
    """One attention layer of a model.

    Attributes:
        index: 0-based position in execution order.
        name: Qualified module name of the attention module.
        heads: Number of attention heads.
        dim: Channels of one head.
        grid: Token geometry, or None where attention has no image geometry.
        stage: 0-based stage of a hierarchical model; 0 for plain ones.
    """

    index: int
    name: str
    heads: int
    dim: int
    grid: TokenGrid | None
    stage: int = 0


@dataclass(frozen=True)
class CheckpointSpec:
    """What a checkpoint is: architecture, origin and the preprocessing it expects.

    Attributes:
        name: Short label for tables and plots.
        architecture: timm model name that holds the weights.
        model_args: Keyword arguments passed to timm beside the name.
        format: Name of the checkpoint format (see `attnprobe list formats`).
        source: Path, catalogue name or `timm:` name the user gave.
        sha256: Hash of the weights file, or of the tensors when there is no file.
        input_size: Channels, height, width.
        mean: Per-channel mean of the normalisation.
        std: Per-channel standard deviation of the normalisation.
        interpolation: PIL interpolation of the resize.
        crop_pct: Centre-crop fraction of the resized short side.
        objective: Training objective (mim, contrastive, supervised, ...) or "unknown".
        assumed: Sentences about everything that was assumed rather than read.
        asked: Options that changed what was loaded: part, heads, arch, img_size, window; hashes of
            plugins.
    """

    name: str
    architecture: str
    model_args: dict[str, Any] = field(default_factory=dict)
    format: str = "timm"
    source: str = ""
    sha256: str = ""
    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.9
    objective: str = "unknown"
    assumed: tuple[str, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadLedger:
    """What became of every tensor in a checkpoint file.

    Attributes:
        matched: Module parameters and buffers filled under their own name.
        converted: "file name -> module name" for renamed, split or merged tensors.
        resampled: "name: old shape -> new shape" for interpolated tables.
        dropped: "name: reason" for tensors of the file that were not used.
        missing: Module parameters that the file did not hold (heads only, or it is an error).
    """

    matched: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Number of entries by kind, in reading order."""
        return {name: len(names) for name, names in asdict(self).items()}


@dataclass(frozen=True)
class MetricOptions:
    """Conventions of the metrics; the defaults are METRIC definitions v1.

    Attributes:
        distance_unit: px, tokens, grid (tokens x grid side) or unit (tokens / (side - 1)).
        entropy_unit: nats or bits.
        prefix: renormalised (drop prefix keys, rescale rows), excluded (drop) or included.
        average: statistic (mean over images) or attention (statistic of their mean attention).
        divergence: kl, symmetric (mean of both directions) or js (Jensen-Shannon).
        cka_tokens: mean (of patches), cls, or flat (every token).
        cka_estimator: unbiased or biased.
        cka_batch: Images in one CKA mini-batch, whatever the forward batch is.
        query_step: Only every step-th patch query is measured, in reading order; 1 for all.
    """

    distance_unit: str = "px"
    entropy_unit: str = "nats"
    prefix: str = "renormalised"
    average: str = "statistic"
    divergence: str = "kl"
    cka_tokens: str = "mean"
    cka_estimator: str = "unbiased"
    cka_batch: int = 64
    query_step: int = 1


@dataclass(frozen=True)
class Provenance:
    """Everything needed to say where a number came from.

    Attributes:
        weights_sha256: Hash of the checkpoint file or tensors.
        images_sha256: Hash over the ids and contents of the images used, in order.
        images: Number of images measured.
        skipped: "id: reason" for images that could not be read.
        transform: Preprocessing, one entry a step, as text.
        versions: Package versions (attnprobe, torch, timm, python, ...).
        device: Device name.
        precision: Floating-point type of the forward pass.
        deviation: Largest relative difference from fp32 on the first images, by metric.
        processes: How many shared the measurement.
        kernel: Kernel implementation that measured the attention.
        seed: Seed of the bootstrap and of any sampling.
        command: The command line or "python".
        created: ISO 8601 time, UTC.
        seconds: Wall time of the measurement.
    """

    weights_sha256: str = ""
    images_sha256: str = ""
    images: int = 0
    skipped: tuple[str, ...] = ()
    transform: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "fp32"
    deviation: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    kernel: str = "blocked"
    seed: int = 0
    command: str = "python"
    created: str = ""
    seconds: float = 0.0
