"""The backbone of a run: a timm model, from scratch or from a checkpoint's encoder."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import nn

from attnprobe import checkpoints
from attnprobe.checkpoints.reading import weightfiles
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.errors import AttnprobeError
from attnprobe.training import shortening
from attnprobe.training.config import TrainingConfig, changed
from attnprobe.types import CheckpointSpec

_FAMILIES = {
    "vit": "vit_base_patch16_224",
    "deit": "deit_base_distilled_patch16_224",
    "beit": "beit_base_patch16_224",
    "swin": "swin_base_patch4_window7_224",
    "swinv2": "swinv2_base_window8_256",
}


def settle(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with the model that `init` implies, where none is named.

    Raises:
        AttnprobeError: Neither a model nor a checkpoint is named.
    """
    shortening.check(config.model)
    if config.model.model:
        return config
    if not config.model.init:
        raise AttnprobeError(
            "no model was named", "give --model (a timm name), --recipe, or --init CKPT"
        )
    spec = checkpoints.load(config.model.init).spec
    name, arguments = _stated(config.model.init) or _implied(spec)
    sizes = {key: arguments.pop(key, 0) for key in ("img_size", "patch_size", "window_size")}
    given = {key: getattr(config.model, key) for key in sizes}
    return changed(
        config,
        "model",
        model=name,
        model_args={**arguments, **config.model.model_args},
        **{key: given[key] or _side(sizes[key]) for key in sizes},
    )


def _stated(source: str) -> tuple[str, dict[str, Any]] | None:
    """Return timm's name and arguments as a file of attnprobe states them."""
    if not Path(source).is_file():
        return None
    card = weightfiles.read(Path(source)).metadata
    name, arguments = card.get("architecture"), card.get("model_args")
    if not (isinstance(name, str) and timm.is_model(name) and isinstance(arguments, dict)):
        return None
    return name, {key: value for key, value in arguments.items() if key != "num_classes"}


def _implied(spec: CheckpointSpec) -> tuple[str, dict[str, Any]]:
    """Return a timm name and the arguments that make it what the shapes of a file say.

    Raises:
        AttnprobeError: timm has no model of that family.
    """
    arguments = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in spec.model_args.items()
        if value is not None and key not in ("num_classes", "in_chans")
    }
    arguments["img_size"] = spec.input_size[1]
    family = spec.architecture.partition("_width")[0]
    name = spec.architecture if timm.is_model(spec.architecture) else _FAMILIES.get(family, "")
    if not name:
        raise AttnprobeError(
            f"the checkpoint is of no architecture that timm names ({spec.architecture})",
            "give --model, and --model-arg for what differs from it",
        )
    return name, arguments


def _side(size: Any) -> int:
    """Return the one side of a square size, or 0 for the model's own."""
    return size if isinstance(size, int) else 0


def create(config: TrainingConfig, *, classes: int) -> nn.Module:
    """Return a timm model with weights drawn from the seed.

    Args:
        config: The run's configuration, settled.
        classes: Outputs of the classifier; 0 for none.

    Raises:
        AttnprobeError: timm has no such model, or it does not take the arguments.
    """
    section = config.model
    if not timm.is_model(section.model):
        near = timm.list_models(f"*{section.model}*")[:3]
        raise AttnprobeError(
            f"timm has no model {section.model!r}",
            f"did you mean {', '.join(near)}?" if near else "see timm.list_models()",
        )
    sizes = {name: getattr(section, name) for name in ("img_size", "patch_size", "window_size")}
    arguments: dict[str, Any] = {name: value for name, value in sizes.items() if value}
    # always said, because timm's Swin would take 0.1
    arguments |= {"drop_path_rate": section.drop_path, **section.model_args}
    backbone = _built(config, {**arguments, "num_classes": classes})
    if section.drop_last:
        arguments["depth"] = shortening.depth_left(backbone, section)
        backbone = _built(config, {**arguments, "num_classes": classes})
    if section.grad_checkpointing:
        any_backbone: Any = backbone
        any_backbone.set_grad_checkpointing(True)
    return backbone


def _built(config: TrainingConfig, arguments: dict[str, Any]) -> nn.Module:
    """Build a timm model with weights drawn from the seed."""
    torch.manual_seed(config.loop.seed)
    try:
        return timm.create_model(config.model.model, **arguments)
    except Exception as error:  # timm and the model classes raise whatever they meet
        raise AttnprobeError(
            f"timm cannot build {config.model.model} with {arguments} ({error})",
            "change --img-size, --patch-size, --window-size or --model-arg",
        ) from error


def described(backbone: nn.Module, config: TrainingConfig) -> CheckpointSpec:
    """Return what the checkpoint of this backbone will be."""
    spec, any_backbone = wrap(backbone).spec, cast("Any", backbone)
    arguments = {
        name: getattr(config.model, name)
        for name in ("img_size", "patch_size", "window_size")
        if getattr(config.model, name)
    }
    shorter = {"depth": len(any_backbone.blocks)} if config.model.drop_last else {}
    return replace(
        spec,
        architecture=config.model.model,
        model_args={**arguments, **config.model.model_args, **shorter},
        input_size=(3, *input_size(backbone, spec)),
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        interpolation=config.data.interpolation,
        crop_pct=1.0 if config.model.img_size else spec.crop_pct,
        source="",
    )


def input_size(backbone: nn.Module, spec: CheckpointSpec) -> tuple[int, int]:
    """Height and width in pixels that a backbone takes."""
    size = getattr(getattr(backbone, "patch_embed", None), "img_size", None)
    return (int(size[0]), int(size[1])) if size else (spec.input_size[1], spec.input_size[2])


def patch_size(backbone: nn.Module) -> tuple[int, int]:
    """Height and width of a patch in pixels.

    Raises:
        AttnprobeError: The backbone has no patch embedding.
    """
    embedding: Any = getattr(backbone, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if patch is None:
        raise AttnprobeError(
            f"{type(backbone).__name__} has no patch embedding",
            "choose a ViT, Swin or Swin V2 of timm",
        )
    return (patch, patch) if isinstance(patch, int) else (int(patch[0]), int(patch[1]))
