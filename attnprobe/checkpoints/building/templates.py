"""The parameter names that each timm family has, from its smallest module."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

Shape = tuple[int, ...]
_PLAIN: dict[str, Any] = {"img_size": 28, "patch_size": 14, "embed_dim": 64, "depth": 1}
_PLAIN |= {"num_heads": 2, "num_classes": 7}
_STAGES: dict[str, Any] = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depths": (1, 1)}
_STAGES |= {"num_heads": (2, 4), "window_size": 4, "num_classes": 7}
# the first module of a family has what every member has, the others what some have
FAMILIES: dict[str, tuple[Callable[[], nn.Module], ...]] = {
    "vit": (
        lambda: VisionTransformer(**_PLAIN),
        lambda: VisionTransformer(**_PLAIN, reg_tokens=1, init_values=1.0, qk_norm=True),
        lambda: VisionTransformer(**_PLAIN, pre_norm=True, fc_norm=True, global_pool="avg"),
    ),
    "beit": (
        lambda: Beit(**_PLAIN, use_rel_pos_bias=True, use_abs_pos_emb=False, init_values=0.1),
        lambda: Beit(**_PLAIN, use_shared_rel_pos_bias=True, global_pool="avg"),
    ),
    "swin": (lambda: SwinTransformer(**_STAGES),),
    "swinv2": (lambda: SwinTransformerV2(**_STAGES),),
    "eva": (
        lambda: Eva(**_PLAIN, use_rot_pos_emb=True, swiglu_mlp=True, qkv_fused=False),
        lambda: Eva(**_PLAIN, use_rot_pos_emb=True, init_values=1.0, num_reg_tokens=1),
    ),
}
_HEADS = ("head.", "fc_norm.", "norm.")


def names(family: str) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Return the names with shapes that a family needs, and all that it can have."""
    with torch.device("meta"):
        shapes = [_shapes(make()) for make in FAMILIES[family]]
    allowed = {name: shape for each in reversed(shapes) for name, shape in each.items()}
    needed = {name: shape for name, shape in shapes[0].items() if not _optional(name, _HEADS)}
    return needed, allowed


def _optional(name: str, heads: Iterable[str]) -> bool:
    return any(name.startswith(head) for head in heads)


def _shapes(module: nn.Module) -> dict[str, Shape]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
