"""A module built by the user, treated like a loaded checkpoint."""

from timm.data.config import resolve_model_data_config
from torch import nn

from attnprobe.checkpoints import LoadedModel
from attnprobe.checkpoints.origins.hub import tensors_digest
from attnprobe.errors import CaptureError
from attnprobe.types import CheckpointSpec, LoadLedger

_SHELLS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def wrap(
    module: nn.Module, name: str | None = None, *, size: tuple[int, int, int] | None = None
) -> LoadedModel:
    """Return a module as it is, with the preprocessing its own configuration names.

    Its weights are hashed but not touched; a data-parallel or compiled shell is taken off.

    Args:
        module: The module.
        name: What to call it.
        size: Channels, height and width of the images, for a module that does not state them.

    Raises:
        CaptureError: The module was compiled in place, so that its layers cannot be observed.
    """
    module = getattr(module, "_orig_mod", module)
    module = module.module if isinstance(module, _SHELLS) else module
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise CaptureError(
            f"{type(module).__name__} was compiled in place, which hides its attention",
            "give the module before .compile(), or a copy",
        )
    config = resolve_model_data_config(module)
    architecture = (
        getattr(module, "pretrained_cfg", {}).get("architecture") or type(module).__name__
    )
    spec = CheckpointSpec(
        name=name or architecture,
        architecture=architecture,
        format="module",
        source="python",
        sha256=tensors_digest(module),
        input_size=_input_size(module, config["input_size"], size),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=float(config["crop_pct"]),
        assumed=_assumed(module),
    )
    return LoadedModel(spec, module, LoadLedger(matched=tuple(module.state_dict())))


def _assumed(module: nn.Module) -> tuple[str, ...]:
    """Return what a module does not say about itself."""
    weights = "the weights are whatever the module held"
    if getattr(module, "pretrained_cfg", None):
        return (weights,)
    return (weights, "image files are normalised as those of ImageNet; tensors stay as they are")


def _input_size(
    module: nn.Module, configured: tuple[int, int, int], size: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Return the size the module was built for, which its configuration may not know."""
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)
    config = getattr(module, "config", None)
    stated = built or getattr(module, "image_size", None) or getattr(config, "image_size", None)
    sides = (stated, stated) if isinstance(stated, int) else stated
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        return configured if size is None or getattr(module, "pretrained_cfg", None) else size
    return (configured[0], int(sides[0]), int(sides[1]))
