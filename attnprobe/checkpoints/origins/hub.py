"""`timm:NAME[.tag]`: a model through timm, with its published or with untrained weights."""

import hashlib
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from attnprobe.catalogue.records import TIMM
from attnprobe.checkpoints.origins import cache, downloads, network
from attnprobe.checkpoints.origins.announcing import announced
from attnprobe.errors import CheckpointError
from attnprobe.types import CheckpointSpec, LoadLedger

FILES = ("model.safetensors", "pytorch_model.bin")
_UNTRAINED = "?pretrained=0"


def load(source: str, *, name: str | None = None) -> tuple[CheckpointSpec, nn.Module, LoadLedger]:
    """Return spec, module and ledger of a `timm:` source.

    Raises:
        CheckpointError: timm has no such model, or its weights cannot be fetched.
    """
    model_name, query, options = source.removeprefix(TIMM).partition("?")
    pretrained = query + options != _UNTRAINED
    if query and pretrained:
        raise CheckpointError(
            f"unknown option {query + options} in {source}", f"write timm:NAME{_UNTRAINED}"
        )
    if not timm.is_model(model_name):
        raise CheckpointError(f"timm has no model {model_name!r}", near(model_name))
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
    if not pretrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same numbers in every process, and the next time
            return timm.create_model(name, pretrained=False)
    _check_tag(name)
    overlay = _local_file(name)
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:
        raise _unreachable(name, str(error).strip().splitlines()[0][:200]) from error


def _check_tag(name: str) -> None:
    base, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if not tags or (tag and tag not in tags):
        raise CheckpointError(
            f"timm has no weights {tag!r} of {base}" if tags else f"timm has no weights of {base}",
            f"choose one of: {', '.join(tags)}" if tags else f"write timm:{base}{_UNTRAINED}",
        )


def _local_file(name: str) -> dict[str, Any] | None:
    """Point timm at a file of this machine where it would wait, or download without a check.

    Raises:
        CheckpointError: The hub cannot be reached and the file is not in its cache.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    if config.url and not config.hf_hub_id:
        return {"file": str(_downloaded(name, str(config.url)))}
    if network.reachable(_endpoint()):
        return None
    for file in FILES:
        path = huggingface_hub.try_to_load_from_cache(str(config.hf_hub_id), file)
        if isinstance(path, str):
            return {"file": path, "custom_load": False}
    raise _unreachable(name, f"{network.reason(_endpoint())} and the cache lacks the file")


def fetch(source: str) -> Path:
    """Return the local file of a `timm:` source, fetched if need be.

    Raises:
        CheckpointError: It has no weights, or they cannot be fetched.
    """
    name = source.removeprefix(TIMM)
    config = timm.get_pretrained_cfg(name)
    if not timm.is_model(name) or config is None:
        raise CheckpointError(f"timm has no model {name!r}", near(name))
    _check_tag(name)
    overlay = _local_file(name)
    if overlay is not None:
        return Path(overlay["file"])
    try:
        return _of_hub(str(config.hf_hub_id))
    except Exception as error:  # the hub's client fails in any way
        raise _unreachable(name, str(error).strip().splitlines()[0][:200]) from error


def _of_hub(repo: str) -> Path:
    try:
        return Path(huggingface_hub.hf_hub_download(repo, FILES[0]))
    except huggingface_hub.errors.EntryNotFoundError:
        return Path(huggingface_hub.hf_hub_download(repo, FILES[1]))


def _downloaded(name: str, address: str) -> Path:
    file = address.rpartition("/")[2]
    wanted = downloads.Wanted(name, address, cache.folder() / name / file)
    with announced(name, wanted.target) as update:
        downloads.download(wanted, update)
    return wanted.target


def _endpoint() -> str:
    return huggingface_hub.constants.ENDPOINT


def _unreachable(name: str, why: str) -> CheckpointError:
    config, base = timm.get_pretrained_cfg(name), name.partition(".")[0]
    full = (config.hf_hub_id if config else "") or f"timm/{name}"
    folder = full.rpartition("/")[2]
    return CheckpointError(
        f"timm cannot fetch the weights of {name}: {why}",
        f"on a connected machine download model.safetensors of {full}, place it at "
        f"./{folder}/model.safetensors and give that path; timm:{base}{_UNTRAINED} is a dry run",
    )


def near(name: str) -> str:
    """Return which of timm's models a mistyped name may have meant, as a next step."""
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
