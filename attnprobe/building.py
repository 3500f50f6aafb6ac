"""Build timm modules without spending time on random weights, and name what was built."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.overrides import TorchFunctionMode

from attnprobe.architecture import Plan
from attnprobe.formats import Format

_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "vit": VisionTransformer,
    "deit": VisionTransformerDistilled,
    "beit": Beit,
    "swin": SwinTransformer,
    "swinv2": SwinTransformerV2,
}
_SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1408, 40): "giant",
    (1536, 40): "giant",
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
        return _CLASSES[plan.family](**plan.kwargs)


def architecture_name(plan: Plan, layout: Format, module: nn.Module) -> str:
    """Return timm's name for a module where a published size matches, else a description."""
    for candidate in _candidates(plan, layout):
        if timm.is_model(candidate) and _same(candidate, plan, module):
            return candidate
    kwargs = plan.kwargs
    layers = kwargs.get("depth") or "-".join(str(depth) for depth in kwargs["depths"])
    return f"{plan.family}_width{kwargs['embed_dim']}_depth{layers}_patch{kwargs['patch_size']}"


def _candidates(plan: Plan, layout: Format) -> list[str]:
    kwargs, side = plan.kwargs, plan.size[0]
    if "depths" in kwargs:
        size = _SWIN_SIZES.get((kwargs["embed_dim"], kwargs["depths"]))
        window = kwargs["window_size"]
        patch = "_patch4" if plan.family == "swin" else ""
        return [f"{plan.family}_{size}{patch}_window{window}_{side}"]
    size = _SIZES.get((kwargs["embed_dim"], kwargs["depth"]))
    patch = kwargs["patch_size"]
    if layout.name == "dinov2":
        register = f"_reg{kwargs['reg_tokens']}" if kwargs["reg_tokens"] else ""
        return [f"vit_{size}_patch{patch}{register}_dinov2"]
    family = {"deit": "deit", "beit": "beit"}.get(plan.family, "vit")
    if layout.name == "deit3":
        family = "deit3"
    tail = "_distilled" if plan.family == "deit" else ""
    return [f"{family}_{size}{tail}_patch{patch}_{side}"]


def _same(name: str, plan: Plan, module: nn.Module) -> bool:
    """Whether timm's model of that name has the very same parameters and heads."""
    options: dict[str, Any] = {"num_classes": plan.kwargs["num_classes"]}
    with torch.device("meta"):
        other = timm.create_model(name, pretrained=False, **options)
    shapes = {key: tuple(value.shape) for key, value in other.named_parameters()}
    ours = {key: tuple(value.shape) for key, value in module.named_parameters()}
    return shapes == ours and _heads(other) == _heads(module)


def _heads(module: nn.Module) -> list[int]:
    return [
        int(getattr(item, "num_heads"))  # noqa: B009
        for name, item in module.named_modules()
        if re.search(r"attn$", name) and hasattr(item, "num_heads")
    ]
