"""The backbone of a run: a timm model, from scratch or from a checkpoint's encoder."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor, nn

from attnprobe import checkpoints
from attnprobe.checkpoints import weightfiles
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.errors import AttnprobeError, PartialLoadError
from attnprobe.training.config import TrainingConfig, changed
from attnprobe.types import CheckpointSpec, LoadLedger

_FAMILIES = {
    "vit": "vit_base_patch16_224",
    "deit": "deit_base_distilled_patch16_224",
    "beit": "beit_base_patch16_224",
    "swin": "swin_base_patch4_window7_224",
    "swinv2": "swinv2_base_window8_256",
}
HEADS = ("head.", "head_dist.", "fc_norm.", "norm.")  # what fine-tuning may begin anew


def settle(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with the model that `init` implies, where none is named.

    Raises:
        AttnprobeError: Neither a model nor a checkpoint is named.
    """
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
    torch.manual_seed(config.loop.seed)
    try:
        backbone = timm.create_model(section.model, num_classes=classes, **arguments)
    except Exception as error:  # timm and the model classes raise whatever they meet
        raise AttnprobeError(
            f"timm cannot build {section.model} with {arguments} ({error})",
            "change --img-size, --patch-size, --window-size or --model-arg",
        ) from error
    if section.grad_checkpointing:
        any_backbone: Any = backbone
        any_backbone.set_grad_checkpointing(True)
    return backbone


def described(backbone: nn.Module, config: TrainingConfig) -> CheckpointSpec:
    """Return what the checkpoint of this backbone will be."""
    spec = wrap(backbone).spec
    arguments = {
        name: getattr(config.model, name)
        for name in ("img_size", "patch_size", "window_size")
        if getattr(config.model, name)
    }
    return replace(
        spec,
        architecture=config.model.model,
        model_args={**arguments, **config.model.model_args},
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


def initialise(backbone: nn.Module, source: str, *, trust: bool = False) -> LoadLedger:
    """Fill a backbone from a checkpoint's encoder; classifiers and last norms may be absent.

    Position embeddings and tables of relative positions are resampled by timm to the
    backbone's grid; a table shared by all layers (SimMIM) is copied to each layer that has
    its own, as the official fine-tuning does.

    Raises:
        PartialLoadError: Some weight of the encoder is not in the checkpoint.
    """
    loaded = checkpoints.load(source, trust=trust)
    given, held = loaded.module.state_dict(), backbone.state_dict()
    matched: dict[str, Tensor] = {}
    resampled: list[str] = []
    for name, target in held.items():
        found = given.get(name, _shared(name, given))
        if found is None or (found.shape != target.shape and name.startswith("head")):
            continue
        if found.shape != target.shape:
            found = _resampled(name, found, target, backbone, loaded.module)
            resampled.append(f"{name}: to {list(target.shape)}")
        matched[name] = found
    missing = [name for name, _ in backbone.named_parameters() if name not in matched]
    if lost := [name for name in missing if not name.startswith(HEADS)]:
        raise PartialLoadError(
            f"{source} has no weights for {lost[0]} ({len(lost)} of {len(held)} in all) "
            f"of {type(backbone).__name__}",
            "give the --model and --model-arg of the checkpoint, or leave --model out",
        )
    backbone.load_state_dict(matched, strict=False)
    unused = tuple(f"{name}: not in the model" for name in given if name not in matched)
    return LoadLedger(
        matched=tuple(matched), resampled=tuple(resampled), dropped=unused, missing=tuple(missing)
    )


def _shared(name: str, given: dict[str, Tensor]) -> Tensor | None:
    """Return the one table of all layers for a layer's own."""
    own = name.startswith("blocks.") and name.endswith(".attn.relative_position_bias_table")
    return given.get("rel_pos_bias.relative_position_bias_table") if own else None


def _resampled(
    name: str, found: Tensor, target: Tensor, backbone: nn.Module, source: nn.Module
) -> Tensor:
    """Resample positions to another grid or window.

    Raises:
        PartialLoadError: The shapes differ otherwise.
    """
    new: Any = getattr(backbone, "patch_embed", None)
    old: Any = getattr(source, "patch_embed", None)
    if name.endswith("pos_embed") and found.shape[-1] == target.shape[-1]:
        prefix = target.shape[1] - new.num_patches
        return resample_abs_pos_embed(
            found, list(new.grid_size), list(old.grid_size), num_prefix_tokens=prefix
        )
    if name.endswith("relative_position_bias_table") and found.shape[1] == target.shape[1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the layout of timm's own temporary tensors
            return resize_rel_pos_bias_table(found, _window(name, backbone), tuple(target.shape))
    raise PartialLoadError(
        f"{name} has shape {list(found.shape)} in the checkpoint and {list(target.shape)} in "
        f"{type(backbone).__name__}",
        "give the --model and --model-arg of the checkpoint",
    )


def _window(name: str, backbone: nn.Module) -> Any:
    """Return the window of the module that owns a table."""
    owner: Any = backbone.get_submodule(name.rpartition(".")[0])
    return owner.window_size
