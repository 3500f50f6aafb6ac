"""Build timm modules without spending time on random weights, and name what was built."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn
from torch.overrides import TorchFunctionMode

from attnprobe.checkpoints.building.architecture import Plan

_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "vit": VisionTransformer,
    "deit": VisionTransformerDistilled,
    "beit": Beit,
    "relpos": VisionTransformerRelPos,
    "eva": Eva,
    "swin": SwinTransformer,
    "swinv2": SwinTransformerV2,
}
_SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (512, 12): "medium",
    (1152, 27): "so400m",
    (1280, 32): "huge",
    (1408, 40): "giant",
    (1536, 40): "giant",
    (1664, 48): "gigantic",
    (4096, 40): "7b",
}
_SWIN_SIZES = {
    (96, (2, 2, 6, 2)): "tiny",
    (96, (2, 2, 18, 2)): "small",
    (128, (2, 2, 18, 2)): "base",
    (192, (2, 2, 18, 2)): "large",
}


class _SkipInit(TorchFunctionMode):
    """Leaves parameters unwritten when modules initialise them; every one is loaded later."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        target = args[0] if args else (kwargs or {}).get("tensor")
        in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if in_place and isinstance(target, nn.Parameter):
            return target
        return func(*args, **(kwargs or {}))


@contextmanager
def unwritten() -> Iterator[None]:
    """Within this context new modules hold unwritten parameters and correct buffers."""
    with _SkipInit():
        yield


def build(plan: Plan) -> nn.Module:
    """Build the module of a plan; its parameters are unwritten memory."""
    with unwritten():
        module = _CLASSES[plan.family](**plan.kwargs)
    if plan.family.startswith("swin") and plan.size[0] != plan.size[1]:
        _unshift(module)
    if plan.finish is not None:
        plan.finish(module)
    return module


def _unshift(module: nn.Module) -> None:
    """Shift along neither axis where one window spans either, as the official code does."""
    for block in module.modules():
        shift: Any = getattr(block, "shift_size", ())
        if 0 in shift and any(shift):
            vars(block)["shift_size"] = (0, 0)
            block.register_buffer("attn_mask", None, persistent=False)


def architecture_name(plan: Plan, module: nn.Module) -> str:
    """Return timm's name for a module where a published size matches, else a description."""
    for candidate in _candidates(plan):
        if timm.is_model(candidate) and _same(candidate, plan, module):
            return candidate
    kwargs = plan.kwargs
    layers = kwargs.get("depth") or "-".join(str(depth) for depth in kwargs["depths"])
    return f"{plan.family}_width{kwargs['embed_dim']}_depth{layers}_patch{kwargs['patch_size']}"


def _candidates(plan: Plan) -> list[str]:
    """Names that timm could have for a plan; each is checked before it is believed."""
    kwargs, side = plan.kwargs, plan.size[0]
    patch = f"patch{kwargs['patch_size']}"
    if "depths" in kwargs:
        size = _SWIN_SIZES.get((kwargs["embed_dim"], kwargs["depths"]))
        middle = f"_{patch}" if plan.family == "swin" else ""
        return [f"{plan.family}_{size}{middle}_window{kwargs['window_size']}_{side}"]
    size = _SIZES.get((kwargs["embed_dim"], kwargs["depth"]))
    if plan.family == "beit":
        return [f"beit_{size}_{patch}_{side}"]
    if plan.family == "deit":
        return [f"deit_{size}_distilled_{patch}_{side}"]
    if plan.family == "relpos":
        return [f"vit_relpos_{size}_{patch}_{side}", f"vit_relpos_{size}_{patch}_cls_{side}"]
    if plan.family == "eva":
        return _eva_candidates(kwargs, f"{size}", patch, side)
    registers = f"_reg{kwargs['reg_tokens']}" if kwargs["reg_tokens"] else ""
    act = "_quickgelu" if kwargs.get("act_layer") == "quick_gelu" else ""
    return [
        f"vit_{size}_{patch}_{side}",
        f"deit3_{size}_{patch}_{side}",
        f"vit_{size}_{patch}{registers}_dinov2",
        f"vit_{size}_{patch}{registers}_gap_{side}",
        f"vit_{size}_{patch}_clip{act}_{side}",
        f"vit_{size}_{patch}_siglip_{side}",
        f"aimv2_{size}_{patch}_{side}",
        f"beit3_{size}_{patch}_{side}",
    ]


def _eva_candidates(kwargs: dict[str, Any], size: str, patch: str, side: int) -> list[str]:
    if kwargs.get("rope_type") == "dinov3":
        plus = f"{size}_plus" if kwargs["swiglu_mlp"] and size != "7b" else size
        return [f"vit_{plus}_{patch}_dinov3", f"vit_{plus}_{patch}_dinov3_qkvb"]
    registers = f"_reg{kwargs['num_reg_tokens']}_gap" if kwargs["num_reg_tokens"] else ""
    return [
        *(
            f"{name}_{size}_{patch}{clip}_{side}"
            for name in ("eva", "eva02")
            for clip in ("", "_clip")
        ),
        f"vit_{size}_{patch}_rope{registers}_{side}",
    ]


def _same(name: str, plan: Plan, module: nn.Module) -> bool:
    """Whether timm's model of that name has the very same parameters and heads."""
    options: dict[str, Any] = {"num_classes": plan.kwargs["num_classes"]}
    with torch.device("meta"), unwritten():  # names and shapes, without memory
        other = timm.create_model(name, pretrained=False, **options)
    shapes = {key: tuple(value.shape) for key, value in other.named_parameters()}
    ours = {key: tuple(value.shape) for key, value in module.named_parameters()}
    return shapes == ours and heads(other) == heads(module)


def heads(module: nn.Module) -> list[int]:
    """Return the heads of every attention module, in the order of their names."""
    return [
        int(getattr(item, "num_heads"))  # noqa: B009
        for name, item in module.named_modules()
        if re.search(r"attn$", name) and hasattr(item, "num_heads")
    ]
