"""A census of vision models of other libraries; the second table of docs/coverage.md."""

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torchvision
import transformers
from families import Found, beside_own
from torch import nn

from attnprobe.attention.settling import settled
from attnprobe.capture import capture
from attnprobe.conformance import Softmaxes
from attnprobe.types import LayerInfo

_TORCH = torchvision.models
with suppress(ImportError):
    import open_clip


@dataclass(frozen=True)
class Model:
    """One row: a small model of another library, and what must be captured of it.

    Attributes:
        library: Where it comes from.
        build: Returns it with random weights, for an implementation of attention.
        layers: Layers to expect; 0 where it is refused.
        kind: Its attention.
        size: Height and width of its images.
        implementations: How it can compute attention, where there is a choice.
        prefix: Its prefix tokens in the first layer.
        refused: Part of the refusal.
        beside: Modules that attend, but not over patches.
        slack: See `token_order.misplaced`.
        twin: A model of timm whose grids must be the same, where pixels cannot tell: without a
            residual path past attention, or through many convolutions, they are mixed.
    """

    library: str
    build: Callable[[str], nn.Module]
    layers: int
    kind: str
    size: tuple[int, int] = (32, 32)
    implementations: tuple[str, ...] = ("",)
    prefix: int = 0
    refused: str = ""
    beside: int = 0
    slack: int = 0
    twin: str = ""


def _hugging(name: str, layers: int = 2, kind: str = "global", **more: Any) -> Model:
    """A model of the transformers library, by the name of its configuration."""
    config = dict(_PLAIN if kind == "global" else {}) | more.pop("config", {})
    both = ("sdpa", "eager") if more.pop("fused", True) else ("eager",)
    suffix = more.pop("suffix", "Model")

    def build(implementation: str) -> nn.Module:
        kind = getattr(transformers, f"{name}Config")
        module = importlib.import_module(kind.__module__.replace("configuration", "modeling"))
        return getattr(module, name + suffix)._from_config(
            kind(**config), attn_implementation=implementation or "eager"
        )

    return Model("transformers", build, layers, kind, implementations=both, **more)


def _seen(name: str, layers: int, kind: str, arguments: dict[str, Any], **more: Any) -> Model:
    """A model of torchvision."""
    build = next(
        vars(module)[name]
        for module in (_TORCH.vision_transformer, _TORCH.swin_transformer, _TORCH.maxvit)
        if name in vars(module)
    )
    return Model("torchvision", lambda _: build(**arguments), layers, kind, **more)


def _inside(library: str, build: Callable[[], nn.Module], layers: int, **more: Any) -> Model:
    """A model of timm inside one of another library, with fused attention and without."""

    def switched(implementation: str) -> nn.Module:
        module = build()
        for part in module.modules():
            if hasattr(part, "fused_attn"):
                vars(part)["fused_attn"] = implementation == "sdpa"
        return module

    return Model(library, switched, layers, "global", implementations=("sdpa", "eager"), **more)


def _timm_wrapper() -> nn.Module:
    return transformers.TimmWrapperModel(transformers.TimmWrapperConfig(architecture="test_vit"))


def _timm_tower() -> nn.Module:
    name = "timm_model_name"
    sizes = {name: "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    clip = open_clip.CustomTextCLIP(16, vision_cfg=sizes, text_cfg=text)
    return clip.visual


def _clip(block_type: str = "", **more: Any) -> Callable[[str], nn.Module]:
    def build(_: str) -> nn.Module:
        sizes = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2}
        tower = open_clip.transformer.VisionTransformer
        blocks = {"block_type": block_type} if block_type else {}
        return tower(**sizes, mlp_ratio=2.0, output_dim=16, **blocks, **more)

    return build


_PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_SWIN = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_SWIN |= {"image_size": 32, "patch_size": 2}
_FOUR = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32]}
_FOUR |= {"num_attention_heads": [1, 1, 2, 2], "mlp_ratios": [2, 2, 2, 2]}
_WIDE = {"initializer_range": 0.02}  # their own of 1e-10 makes all probabilities equal
_SAM = _WIDE | {"global_attn_indexes": [1], "window_size": 2}
_SAM2 = {"hidden_size": 16, "num_attention_heads": 1, "image_size": [64, 128]}
_SAM2 |= {"blocks_per_stage": [1, 2, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]}
_SAM2 |= {"num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [4, 2, 4, 2]}
_SAM2 |= {"global_attention_blocks": [4], "window_positional_embedding_background_size": [4, 4]}
_FLORENCE = {"embed_dim": [8, 16, 16, 32], "num_heads": [1, 2, 2, 2], "num_groups": [1, 2, 2, 2]}
_FLORENCE |= {"depths": [1, 1, 1, 1], "window_size": 4, "projection_dim": 16}
_LEVIT = {"hidden_sizes": [16] * 3, "key_dim": [4] * 3, "num_attention_heads": [2] * 3}
_LEVIT |= {"initializer_range": 0.2}
_MOBILE = {"hidden_sizes": [16, 16, 32], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]}
_TORCH_SWIN = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
_TORCH_SWIN |= {"patch_size": [2, 2], "num_classes": 4}
_V2 = {
    "block": _TORCH.swin_transformer.SwinTransformerBlockV2,
    "downsample_layer": _TORCH.swin_transformer.PatchMergingV2,
}
_TORCH_PLAIN = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2}
_TORCH_PLAIN |= {"hidden_dim": 32, "mlp_dim": 64}
_TORCH_MAXVIT = {"input_size": (64, 64), "stem_channels": 16, "partition_size": 4}
_TORCH_MAXVIT |= {"block_channels": [16, 16], "block_layers": [1, 1], "head_dim": 8}
_TORCH_MAXVIT |= {"stochastic_depth_prob": 0.0, "num_classes": 4}
MODELS = {
    "ViT": _hugging("ViT", prefix=1),
    "DeiT": _hugging("DeiT", prefix=2),
    "MAE": _hugging("ViTMAE", prefix=1),
    "MSN": _hugging("ViTMSN", prefix=1),
    "BEiT": _hugging("Beit", prefix=1, config={"use_relative_position_bias": True}),
    "Data2Vec": _hugging("Data2VecVision", prefix=1, config={"use_relative_position_bias": True}),
    "DINOv2": _hugging("Dinov2", prefix=1, size=(32, 48)),
    "DINOv2, registers": _hugging(
        "Dinov2WithRegisters", prefix=4, config={"num_register_tokens": 3}
    ),
    "DINOv3": _hugging("DINOv3ViT", prefix=4, config={"num_register_tokens": 3}, size=(32, 48)),
    "CLIP": _hugging("CLIPVision", prefix=1),
    "SigLIP": _hugging("SiglipVision", beside=1),
    "I-JEPA": _hugging("IJepa"),
    "Swin": _hugging("Swin", 4, "shifted windows", config=_SWIN),
    "Swin V2": _hugging("Swinv2", 4, "shifted windows", config=_SWIN, fused=False),
    "PVT": _hugging(
        "Pvt",
        4,
        "pooled keys, global",
        size=(64, 64),
        config=_FOUR | {"image_size": 64},
        fused=False,
    ),
    "PVTv2": _hugging(
        "PvtV2", 4, "pooled keys, global", size=(64, 96), config=_FOUR, fused=False, slack=1
    ),
    "SegFormer": _hugging("Segformer", 4, "pooled keys, global", size=(64, 96), config=_FOUR),
    "SigLIP 2": _hugging(
        "Siglip2Vision",
        0,
        "any grid",
        refused="patches instead of images",
        config={name: value for name, value in _PLAIN.items() if name != "image_size"},
    ),
    "YOLOS": _hugging(
        "Yolos", prefix=4, config={"image_size": [32, 48], "num_detection_tokens": 3}, size=(32, 48)
    ),
    "CvT": _hugging(
        "Cvt",
        6,
        "pooled keys",
        fused=False,
        config={"embed_dim": [16, 16, 32], "num_heads": [1, 1, 2], "depth": [1, 2, 3]},
        size=(64, 96),
        slack=1,
    ),
    "Hiera": _hugging(
        "Hiera",
        6,
        "mask units, global, pooled queries",
        fused=False,
        config={"embed_dim": 8, "depths": [1, 2, 2, 1], "image_size": [64, 96]},
        size=(64, 96),
        slack=1,
    ),
    "AIMv2": _hugging("Aimv2Vision", beside=1),
    "AltCLIP": _hugging("AltCLIPVision", prefix=1),
    "BLIP": _hugging("BlipVision", prefix=1, fused=False, config=_WIDE),
    "BLIP-2": _hugging("Blip2Vision", prefix=1, config=_WIDE),
    "Chinese CLIP": _hugging("ChineseCLIPVision", prefix=1),
    "CLIPSeg": _hugging("CLIPSegVision", prefix=1),
    "DPT": _hugging("DPT", prefix=1, config={"backbone_out_indices": [0, 0, 1, 1]}),
    "FLAVA": _hugging("FlavaImage", prefix=1, fused=False),
    "GIT": _hugging("GitVision", prefix=1, fused=False),
    "InstructBLIP": _hugging("InstructBlipVision", prefix=1, config=_WIDE),
    "InternVL": _hugging("InternVLVision", prefix=1),
    "Janus": _hugging("JanusVision"),
    "Kosmos-2": _hugging("Kosmos2Vision", prefix=1),
    "MetaCLIP 2": _hugging("MetaClip2Vision", prefix=1),
    "MLCD": _hugging("MLCDVision", prefix=1, config={"num_key_value_groups": 1}),
    "OWL-ViT": _hugging("OwlViTVision", prefix=1),
    "OWLv2": _hugging("Owlv2Vision", prefix=1),
    "Pixio": _hugging("Pixio", prefix=3, config={"n_cls_tokens": 3, "mlp_ratio": 2}),
    "Sapiens 2": _hugging("Sapiens2", prefix=4, config={"num_register_tokens": 3}),
    "TIPS v2": _hugging("Tipsv2Vision", prefix=2),
    "ViTPose": _hugging(
        "VitPoseBackbone",
        suffix="",
        config={"image_size": [32, 48], "patch_size": [8, 8]},
        size=(32, 48),
    ),
    "Donut": _hugging("DonutSwin", 4, "shifted windows", config=_SWIN, fused=False),
    "MaskFormer": _hugging("MaskFormerSwin", 4, "shifted windows", config=_SWIN, fused=False),
    "ViTDet": _hugging(
        "VitDet",
        2,
        "windows, global",
        config=_PLAIN | {"window_block_indices": [0], "window_size": 2, "mlp_ratio": 2},
        fused=False,
    ),
    "SAM": _hugging("SamVision", 2, "windows, global", config=_PLAIN | _SAM),
    "SAM-HQ": _hugging("SamHQVision", 2, "windows, global", config=_PLAIN | _SAM),
    "SAM 3": _hugging("Sam3ViT", 2, "windows, global", config=_PLAIN | _SAM),
    "SAM 2": _hugging(
        "Sam2HieraDet",
        6,
        "windows, global, pooled queries",
        config=_SAM2,
        size=(64, 128),
        slack=1,
    ),
    "Florence-2": _hugging(
        "Florence2Vision",
        4,
        "windows",
        suffix="Backbone",
        config=_FLORENCE,
        size=(128, 128),
        beside=4,
        slack=1,
    ),
    "GLPN": _hugging(
        "GLPN", 4, "pooled keys, global", size=(64, 96), config=_FOUR, fused=False, slack=1
    ),
    "LeViT": _hugging(
        "Levit",
        14,
        "global, pooled queries",
        size=(224, 224),
        config=_LEVIT,
        fused=False,
        twin="levit_128",
    ),
    "MobileViT": _hugging(
        "MobileViT",
        9,
        "dilated windows",
        size=(64, 96),
        config=_MOBILE,
        fused=False,
        twin="mobilevit_xxs",
    ),
    "MobileViT V2": _hugging(
        "MobileViTV2",
        0,
        "none",
        config={"width_multiplier": 0.25},
        size=(64, 64),
        refused="never forms one probability",
        fused=False,
    ),
    "SwiftFormer": _hugging(
        "SwiftFormer",
        0,
        "none",
        config={"depths": [1] * 4, "embed_dims": [8, 8, 16, 16]},
        refused="never forms one probability",
        fused=False,
    ),
    "a model of timm": _inside("transformers", _timm_wrapper, 6, size=(160, 160), prefix=1),
    "torchvision ViT": _seen("VisionTransformer", 2, "global", _TORCH_PLAIN, prefix=1),
    "torchvision Swin": _seen("SwinTransformer", 4, "shifted windows", _TORCH_SWIN),
    "torchvision Swin V2": _seen("SwinTransformer", 4, "shifted windows", _TORCH_SWIN | _V2),
    "torchvision MaxViT": _seen(
        "MaxVit", 4, "windows, dilated windows", _TORCH_MAXVIT, size=(64, 64), slack=1
    ),
    "OpenCLIP": Model("open_clip", _clip(), 2, "global", prefix=1),
    "OpenCLIP, tower of timm": _inside("open_clip", _timm_tower, 6, size=(160, 160), prefix=1),
    "OpenCLIP, own attention": Model(
        "open_clip", _clip(block_type="custom"), 2, "global", prefix=1
    ),
    "OpenCLIP, attention pooling": Model(
        "open_clip",
        _clip(attentional_pool=True, attn_pooler_queries=4),
        2,
        "global",
        prefix=1,
        beside=1,
    ),
}
PRESENT = {
    name: model
    for name, model in MODELS.items()
    if model.library != "open_clip" or find_spec("open_clip")
}


def build(
    model: Model, implementation: str = "", *, sharp: float = 2
) -> tuple[nn.Module, torch.Tensor]:
    """Return a small random model with weights `sharp` times the usual, and images for it."""
    torch.manual_seed(0)
    module = model.build(implementation or model.implementations[0]).eval()
    torch.manual_seed(1)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and "position" not in name:  # sharper than at initialisation
            parameter.data.mul_(sharp)
    return module, torch.randn(2, 3, *model.size)


def census(model: Model, implementation: str = "") -> Found:
    """Return what is captured of a model, beside what it computes itself."""
    module, images = build(model, implementation)
    with torch.inference_mode():
        with settled(module):
            bare = outputs(module(images))
        with capture(module, on_features=lambda _: None) as taps:
            watched = outputs(module(images))
    same = len(bare) == len(watched) and all(map(torch.equal, bare, watched))
    own = own_probabilities(build(model, model.implementations[-1])[0], images, taps.layers)
    return beside_own(module, taps, own, same=same)


def outputs(given: Any) -> list[torch.Tensor]:
    """Return the tensors that a model gives."""
    if isinstance(given, torch.Tensor):
        return [given]
    parts = given.values() if isinstance(given, dict) else given
    return [x for x in parts if isinstance(x, torch.Tensor)]


def own_probabilities(
    module: nn.Module, images: torch.Tensor, layers: Sequence[LayerInfo]
) -> dict[str, list[torch.Tensor]]:
    """Return the probabilities that the layers form themselves, unfused, by name."""
    names = [layer.name for layer in layers]
    softmaxes, told = Softmaxes(module, names), {}

    def asked(name: str, part: nn.Module, args: tuple, kwargs: dict[str, Any], _: Any) -> None:
        more = {"need_weights": True, "average_attn_weights": False}
        told[name] = [type(part).forward(part, *args, **kwargs | more)[1]]

    def rebuilt(name: str, part: Any, args: tuple, _: Any) -> None:
        """OpenCLIP's own attention, whose unfused path does not run."""
        qkv = nn.functional.linear(args[0], part.in_proj_weight, part.in_proj_bias)
        q, k, _ = qkv.unflatten(-1, (3, part.num_heads, -1)).permute(2, 0, 3, 1, 4)
        told[name] = [(part.ln_q(q) @ part.ln_k(k).mT * part.head_dim**-0.5).softmax(-1)]

    for name in names:
        part = module.get_submodule(name)
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_hook(partial(asked, name), with_kwargs=True)
        elif hasattr(part, "ln_q"):
            part.register_forward_hook(partial(rebuilt, name))
    with torch.inference_mode(), settled(module), softmaxes.watching():
        module(images)
    return softmaxes.found | told


def page() -> str:
    """Return the second table of docs/coverage.md."""
    return HEAD + "\n".join(_row(name, model) for name, model in MODELS.items()) + "\n"


def _row(name: str, model: Model) -> str:
    start = f"| {name} | {model.library} | {model.kind} "
    if not model.layers:
        return f"{start}| refused | - | - |"
    found = [census(model, implementation) for implementation in model.implementations]
    worst = max(x.worst for x in found)
    off = f"1e{math.ceil(math.log10(worst))}" if worst else "0"
    metrics = "all" + (f"; {model.beside} other modules left out" if model.beside else "")
    return f"{start}| {found[0].layers} of {model.layers} | {off} | {metrics} |"


HEAD = """
## Models of other libraries

The same for models of transformers (with fused attention and without), torchvision and OpenCLIP,
as objects in Python. *Difference* is from the library's own unfused attention. Torch's fused
encoder layers are off while a model is watched, and the random masking of MAE too; the output is
that of the model with these off, to the bit. A model of timm may lie inside another module. What
forms probabilities without a softmax of torch's (by exp and a sum, say) is not seen, and what
changes them after their softmax is not part of what is measured.

| model | library | attention | layers | difference | metrics |
|---|---|---|---|---|---|
"""
