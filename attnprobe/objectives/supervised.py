"""Classification with labels, augmented and regularised as in DeiT (Touvron et al., ICML 2021).

RandAugment, random erasing, mixup, CutMix and label smoothing are timm's, with the values of
the paper's table 9.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.mixup import Mixup
from timm.data.transforms import MaybeToTensor
from timm.data.transforms_factory import create_transform
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torchvision import transforms

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Batch, Clock, Framing, Objective
from attnprobe.objectives import _backbone as backbone
from attnprobe.objectives import _views as views
from attnprobe.objectives._attention import suited
from attnprobe.options import option

_SMALL = 64  # pixels; larger images are cropped by area


@dataclass(frozen=True)
class Options:
    """Options of classification; the defaults are DeiT's."""

    crop_min: float = option(0.08, "Least share of an image's area in a crop.", low=0)
    crop_max: float = option(1.0, "Largest share of an image's area in a crop.", low=0)
    ratio: float = option(4 / 3, "Largest ratio of a crop's sides.", low=1)
    padding_crop: int = option(
        0, "Crop from a border of so many black pixels instead, up to 64 px (CIFAR: 4).", low=0
    )
    flip: float = option(0.5, "Chance of a horizontal flip.", low=0, high=1)
    auto_augment: str = option("rand-m9-mstd0.5-inc1", "timm's policy of augmentation; empty: off.")
    color_jitter: float = option(0.3, "Brightness, contrast, saturation; not beside a policy.")
    random_erasing: float = option(0.25, "Chance that a rectangle becomes noise.", low=0, high=1)
    mixup: float = option(0.8, "Alpha of mixup; 0: off.", low=0)
    cutmix: float = option(1.0, "Alpha of CutMix; 0: off.", low=0)
    label_smoothing: float = option(0.1, "Share of a label spread over all classes.", low=0)


class Classifier(nn.Module):
    """A backbone with its own classifier, and the loss.

    Args:
        encoder: timm backbone with an output for each class.
        options: Options of the objective.
        framing: Input size of the backbone and number of classes.

    Raises:
        AttnprobeError: The backbone does not return one value a class.
    """

    encoder: Any

    def __init__(self, encoder: nn.Module, options: Options, framing: Framing) -> None:
        super().__init__()
        logits = backbone.trial(encoder, framing.size, encoder)
        if framing.classes < 1 or logits.shape != (1, framing.classes):
            raise AttnprobeError(
                f"{type(encoder).__name__} returns {tuple(logits.shape)} for one image, but the "
                f"data has {framing.classes} classes",
                "build the backbone with num_classes equal to the classes of the data",
            )
        self.encoder = encoder
        self.hard = LabelSmoothingCrossEntropy(_smoothing(options))
        self.soft = SoftTargetCrossEntropy()

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and logits [batch, classes], both float32.

        Args:
            images: Normalised images, float [batch, 3, height, width].
            targets: Classes, int64 [batch], or probabilities, float [batch, classes].
        """
        with suited(self, images):
            logits = self.encoder(images).float()
        loss = self.hard if targets.ndim == 1 else self.soft
        return loss(logits, targets), logits

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside biases and norms."""
        return backbone.undecayed(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns of layers, for learning rates that decay with depth."""
        return _below_encoder(self.encoder.group_matcher(coarse=coarse))


def _below_encoder(patterns: Any) -> Any:
    """Let timm's patterns of parameter names match the same names after `encoder.`."""
    if isinstance(patterns, dict):
        return {name: _below_encoder(part) for name, part in patterns.items()}
    if isinstance(patterns, list | tuple):
        return [(_below_encoder(pattern), suffix) for pattern, suffix in patterns]
    if isinstance(patterns, str):
        loose = re.sub(r"(?<!\[)\^", "", patterns)  # names are matched from their start anyway
        return rf"encoder\.(?:{loose})"
    return patterns


def _smoothing(options: Options) -> float:
    if not 0 <= options.label_smoothing < 1:
        raise AttnprobeError(
            f"label_smoothing is {options.label_smoothing}", "give it a value from 0 to below 1"
        )
    return options.label_smoothing


def _views(options: Options, framing: Framing) -> "partial[dict[str, Tensor]]":
    if not 0 < options.crop_min <= options.crop_max <= 1:
        raise AttnprobeError(
            f"crops from {options.crop_min} to {options.crop_max} of an image's area cannot be "
            "drawn",
            "set crop_min above 0 and no larger than crop_max, which is at most 1",
        )
    try:
        transform: Any = create_transform(
            framing.size,
            is_training=True,
            scale=(options.crop_min, options.crop_max),
            ratio=(1 / options.ratio, options.ratio),
            hflip=options.flip,
            color_jitter=options.color_jitter,
            auto_augment=options.auto_augment or None,
            interpolation=framing.interpolation,
            mean=framing.mean,
            std=framing.std,
            re_prob=options.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError) as error:  # timm's ways to refuse a policy
        raise AttnprobeError(
            f"timm knows no augmentation {options.auto_augment!r} ({error})",
            "try rand-m9-mstd0.5-inc1, augmix-m3-w3, original, or an empty text for none",
        ) from error
    for step in transform.transforms:
        _allow_no_bits(step)
    if options.padding_crop:
        transform.transforms[0] = _padding_crop(options, framing)
    return partial(_view, *_faster(transform.transforms, framing))


def _faster(steps: list[Any], framing: Framing) -> tuple[views.View, list[Any]]:
    """Return what makes a normalised view, and what changes it afterwards (erasing)."""
    end = next(at for at, step in enumerate(steps) if isinstance(step, MaybeToTensor))
    drawn = [
        views.flip(step.p) if isinstance(step, transforms.RandomHorizontalFlip) else step
        for step in steps[:end]
    ]
    return views.compose(framing, drawn), steps[end + 2 :]  # after the normalisation


def _allow_no_bits(step: Any) -> None:
    """Let timm's strongest posterize keep no bits, which pillow refuses from version 13 on."""
    policies = getattr(step, "policy", ())
    for operation in [*getattr(step, "ops", ()), *(one for part in policies for one in part)]:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterized


def _posterized(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep)


def _padding_crop(options: Options, framing: Framing) -> views.BorderCrop:
    """Crop from a black border, in place of a crop by area."""
    if max(framing.size) > _SMALL:
        raise AttnprobeError(
            f"padding_crop is for inputs of up to {_SMALL} pixels, this one has "
            f"{framing.size[0]} x {framing.size[1]}",
            "set padding_crop to 0",
        )
    resample = Image.Resampling[framing.interpolation.upper()]
    return views.BorderCrop(framing.size, options.padding_crop, resample)


def _view(view: views.View, after: list[Any], image: Image.Image) -> dict[str, Tensor]:
    pixels = view(image)
    for step in after:
        pixels = step(pixels)
    return {"image": pixels}


def _mix(options: Options, framing: Framing) -> Callable[[Batch, Clock], Batch] | None:
    if not (options.mixup or options.cutmix):
        return None
    mixup = Mixup(
        mixup_alpha=options.mixup,
        cutmix_alpha=options.cutmix,
        label_smoothing=_smoothing(options),
        num_classes=framing.classes,
    )
    return partial(_mixed, mixup)


def _mixed(mixup: Mixup, batch: Batch, clock: Clock) -> Batch:
    """Mix each image with its mirror place in the batch; depends on update and images alone."""
    if len(batch["image"]) % 2:
        raise AttnprobeError(
            f"mixup and CutMix mix images in pairs, but {len(batch['image'])} come together",
            "take an even number of images for each process and accumulated part, or set mixup "
            "and cutmix to 0",
        )
    first = int(batch["index"][0])
    held: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - timm draws from it
    try:
        drawn = np.random.SeedSequence([clock.step, clock.micro, first]).generate_state(1)
        np.random.seed(int(drawn[0]))  # noqa: NPY002
        image, target = mixup(batch["image"], batch["label"])
    finally:
        np.random.set_state(held)  # noqa: NPY002
    return {**batch, "image": image, "target": target}


def _step(module: nn.Module, batch: Batch, clock: Clock) -> dict[str, Tensor]:
    del clock
    if "target" in batch:
        return {"loss": module(batch["image"], batch["target"])[0]}
    loss, logits = module(batch["image"], batch["label"])
    hits = logits.detach().argmax(1) == batch["label"]
    return {"loss": loss, "top1": hits.to(torch.float32).mean()}


OBJECTIVE = Objective(
    name="supervised",
    title="classification as in DeiT (Touvron et al., 2021)",
    kind="supervised",
    labelled=True,
    config=Options,
    views=_views,
    build=Classifier,
    step=_step,
    mix=_mix,
)
