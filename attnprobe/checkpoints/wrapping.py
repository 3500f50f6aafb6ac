"""A module built by the user, treated like a loaded checkpoint."""

import hashlib

from timm.data.config import resolve_model_data_config
from torch import nn

from attnprobe.checkpoints import LoadedModel
from attnprobe.types import CheckpointSpec, LoadLedger


def wrap(module: nn.Module, name: str | None = None) -> LoadedModel:
    """Return a module as it is, with the preprocessing its own configuration names.

    The module is put in eval mode; its weights are hashed but not otherwise touched.
    """
    config = resolve_model_data_config(module)
    architecture = (
        getattr(module, "pretrained_cfg", {}).get("architecture") or type(module).__name__
    )
    spec = CheckpointSpec(
        name=name or architecture,
        architecture=architecture,
        format="module",
        source="python",
        sha256=fingerprint(module),
        input_size=_input_size(module, config["input_size"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=float(config["crop_pct"]),
        assumed=("the weights are whatever the module held",),
    )
    return LoadedModel(spec, module.eval(), LoadLedger(matched=tuple(module.state_dict())))


def _input_size(module: nn.Module, configured: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the size the module was built for, which its configuration may not know."""
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if not isinstance(built, tuple):
        return configured
    return (configured[0], int(built[0]), int(built[1]))


def fingerprint(module: nn.Module) -> str:
    """Return sha256 over the names and bytes of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
