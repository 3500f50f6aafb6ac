"""`timm:NAME[.tag]`: a model through timm, with its published or with untrained weights."""

import hashlib
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from attnprobe.types import CheckpointError, CheckpointSpec, LoadLedger

SCHEME = "timm:"
_UNTRAINED = "?pretrained=0"


def load(source: str, *, name: str | None = None) -> tuple[CheckpointSpec, nn.Module, LoadLedger]:
    """Return spec, module and ledger of a `timm:` source.

    Raises:
        CheckpointError: timm has no such model, or its weights cannot be fetched.
    """
    model_name, query, options = source.removeprefix(SCHEME).partition("?")
    pretrained = query + options != _UNTRAINED
    if query and pretrained:
        raise CheckpointError(
            f"unknown option {query + options} in {source}", f"write timm:NAME{_UNTRAINED}"
        )
    if not timm.is_model(model_name):
        raise CheckpointError(f"timm has no model {model_name!r}", _near(model_name))
    module = _create(model_name, pretrained=pretrained)
    module.eval().requires_grad_(False)
    names = tuple(module.state_dict())
    ledger = LoadLedger(matched=names) if pretrained else LoadLedger(missing=names)
    return _spec(source, model_name, module, name=name, pretrained=pretrained), module, ledger


def tensors_digest(module: nn.Module) -> str:
    """Return a SHA-256 over names, types, shapes and bytes of a module's state."""
    state = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        state.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return state.hexdigest()


def _create(name: str, *, pretrained: bool) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained)
    except Exception as error:
        base = name.partition(".")[0]
        raise CheckpointError(
            f"timm cannot give {name}: {str(error).strip().splitlines()[0][:200]}",
            f"on a connected machine download model.safetensors of timm/{name}, place it in a "
            f"folder named {name}, and give that path; or timm:{base}{_UNTRAINED} for a dry run",
        ) from error


def _near(name: str) -> str:
    base = name.partition(".")[0]
    known = timm.list_models(f"*{base}*") or timm.list_models(f"{base[:6]}*")
    return f"did you mean one of: {', '.join(known[:6])}" if known else "see timm.list_models()"


def _spec(
    source: str, model: str, module: nn.Module, *, name: str | None, pretrained: bool
) -> CheckpointSpec:
    config: dict[str, Any] = resolve_model_data_config(module)
    untrained = ("the weights are UNTRAINED random numbers: for dry runs only",)
    return CheckpointSpec(
        name=name or (model if pretrained else f"{model} (untrained)"),
        architecture=model.partition(".")[0],
        format="timm" if pretrained else "timm-random",
        source=source,
        sha256=tensors_digest(module),
        input_size=tuple(config["input_size"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        assumed=() if pretrained else untrained,
    )
