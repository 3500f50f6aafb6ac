"""A census of attention families: what is captured of each, and how close to the model's own.

`python tests/families.py` writes docs/coverage.md from it.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

from attnprobe.attention import left_out
from attnprobe.attention.reading import own_in_order
from attnprobe.capture import capture
from attnprobe.conformance import Softmaxes, unfused
from attnprobe.kernels import reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "coverage.md"
CLOSE = 1e-5  # largest difference of a probability


@dataclass(frozen=True)
class Family:
    """One row: a small model of the family, and what must be captured of it."""

    model: str
    layers: int  # expected; 0 where the family is refused
    kind: str
    size: int = 64
    arguments: dict[str, Any] = field(default_factory=dict)
    unplaced: int = 0  # layers without geometry
    refused: str = ""  # part of the refusal
    own: str = ""  # module that is given the probabilities, where they are not one softmax


def _plain(size: int = 64, **more: Any) -> dict[str, Any]:
    return {"img_size": size, "depth": 2, "embed_dim": 64, "num_heads": 2, **more}


_FOUR = {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 64), "num_heads": (1, 2, 4, 4)}
_SWIN = {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32}
FAMILIES = {
    "ViT": Family("test_vit", 6, "global", 160),
    "DeiT III": Family("deit3_small_patch16_224", 2, "global", 64, _plain()),
    "BEiT": Family("beit_base_patch16_224", 2, "global", 64, _plain()),
    "EVA-02": Family("eva02_tiny_patch14_224", 2, "global", 56, {"img_size": 56, "depth": 2}),
    "DINOv3": Family("vit_small_patch16_dinov3", 2, "global", 64, {"img_size": 64, "depth": 2}),
    "ViT, relative position": Family("vit_relpos_small_patch16_224", 2, "global", 64, _plain()),
    "NaFlexViT": Family(
        "naflexvit_base_patch16_siglip",
        2,
        "global",
        64,
        {"depth": 2, "embed_dim": 64, "num_heads": 2},
    ),
    "SAM": Family(
        "samvit_base_patch16",
        2,
        "windows, global",
        128,
        _plain(128, window_size=4, global_attn_indexes=(1,)),
    ),
    "ViTamin": Family("vitamin_small_224", 2, "global", 64, {"img_size": 64, "depth": 2}),
    "MaxViT": Family(
        "maxvit_rmlp_pico_rw_256",
        8,
        "windows, dilated windows",
        64,
        {"img_size": 64, "embed_dim": (32, 32, 64, 64), "depths": (1, 1, 1, 1)},
    ),
    "CAFormer": Family("caformer_s18", 12, "global"),
    "NesT": Family("nest_tiny", 12, "windows, global", 64, {"img_size": 64}),
    "Next-ViT": Family("nextvit_small", 4, "pooled keys, global", unplaced=3),
    "PVTv2": Family("pvt_v2_b0", 4, "pooled keys, global", 64, {"depths": (1, 1, 1, 1)}),
    "Twins-PCPVT": Family(
        "twins_pcpvt_small", 4, "pooled keys, global", 64, {"img_size": 64, **_FOUR}
    ),
    "Twins-SVT": Family(
        "twins_svt_small",
        8,
        "windows, pooled keys, global",
        224,
        {**_FOUR, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 8, 4)},
    ),
    "TinyViT": Family("tiny_vit_5m_224", 3, "windows, global", 224, _FOUR),
    "VOLO": Family("volo_d1_224", 16, "global, class", 64, {"img_size": 64}, unplaced=2),
    "FastViT": Family("fastvit_sa12", 1, "global", 64, {"layers": (1, 1, 1, 1)}),
    "MobileNetV4": Family("mobilenetv4_hybrid_medium", 8, "pooled keys, global"),
    "MobileNetV5": Family("mobilenetv5_base", 13, "global"),
    "LowFormer": Family("lowformer_b0", 7, "global"),
    "CPUBone": Family("cpubone_nano", 3, "global"),
    "CoAtNet": Family("coatnet_pico_rw_224", 7, "global", 64, {"img_size": 64}),
    "iFormer": Family("iformer_t", 5, "global", 72),
    "CSATv2": Family("csatv2", 4, "global", 128),
    "DaViT": Family("davit_tiny", 4, "windows", 224, _FOUR),
    "EfficientFormer": Family("efficientformer_l1", 1, "global", 224),
    "GCViT": Family("gcvit_xxtiny", 12, "windows, global", 224),
    "LeViT": Family("levit_128s", 11, "global, pooled queries", 224),
    "SHViT": Family("shvit_s1", 9, "global", 224),
    "Swin": Family(
        "swin_tiny_patch4_window7_224", 4, "shifted windows", 56, {"img_size": 56, **_SWIN}
    ),
    "Swin V2": Family(
        "swinv2_tiny_window8_256", 4, "shifted windows", 64, {"img_size": 64, **_SWIN}
    ),
    "Swin V2, CR": Family(
        "swinv2_cr_tiny_224", 4, "shifted windows", 56, {"img_size": 56, "window_size": 7, **_SWIN}
    ),
    "BoTNet": Family("botnet26t_256", 3, "global", 256),
    "XCiT": Family(
        "xcit_nano_12_p16_224",
        2,
        "class",
        64,
        {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2},
        unplaced=2,
    ),
    "CaiT": Family(
        "cait_xxs24_224",
        4,
        "talking heads, class",
        64,
        {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2},
        unplaced=2,
    ),
    "CoaT": Family("coat_tiny", 0, "none", 64, {"img_size": 64}, refused="never forms"),
    "ConViT": Family(
        "convit_tiny",
        2,
        "gated, global",
        64,
        {"img_size": 64, "depth": 2, "local_up_to_layer": 1, "embed_dim": 16},
        own="attn_drop",
    ),
    "CrossViT": Family(
        "crossvit_9_240",
        7,
        "global, class",
        48,
        {
            "img_size": 48,
            "img_scale": (1.0, 32 / 48),
            "patch_size": (12, 16),
            "depth": ((1, 4, 0),),
        },
        unplaced=2,
    ),
    "EdgeNeXt": Family("edgenext_xx_small", 0, "channel", refused="channels"),
    "EfficientFormer V2": Family(
        "efficientformerv2_s0", 5, "talking heads, global, pooled queries", 224
    ),
    "EfficientViM": Family("efficientvim_m1", 0, "none", refused="never forms"),
    "EfficientViT (MIT)": Family("efficientvit_b0", 0, "none", refused="no attention layers"),
    "EfficientViT (MSRA)": Family("efficientvit_m0", 6, "windows, heads in turn", 224),
    "HaloNet": Family("halonet26t", 0, "overlapping windows", 256, refused="overlap"),
    "Hiera": Family(
        "hiera_tiny_224",
        8,
        "windows, global, pooled queries",
        64,
        {"img_size": (64, 64), "embed_dim": 16, "num_heads": 1, "stages": (2, 2, 2, 2)},
    ),
    "Hiera, SAM 2": Family(
        "sam2_hiera_tiny",
        6,
        "windows, global, pooled queries",
        224,
        {"embed_dim": 16, "num_heads": 1, "stages": (1, 2, 2, 1), "global_att_blocks": (4,)},
    ),
    "MambaOut": Family("test_mambaout", 0, "none", refused="no attention layers"),
    "MobileViT": Family("mobilevit_xxs", 9, "dilated windows", 72),
    "MobileViT V2": Family("mobilevitv2_050", 0, "none", refused="never forms"),
    "MViTv2": Family("mvitv2_tiny", 10, "pooled keys, pooled queries", 64, {"img_size": 64}),
    "PiT": Family(
        "pit_ti_224", 3, "global", 64, {"img_size": 64, "depth": (1, 1, 1), "base_dims": (16,) * 3}
    ),
    "TNT": Family("tnt_s_patch16_224", 2, "inner, global", 64, {"img_size": 64, "depth": 1}),
    "ViT, hybrid": Family("vit_small_r26_s32_224", 2, "global", 64, _plain()),
    "VisFormer": Family("visformer_tiny", 8, "global", 64, {"img_size": 64}),
    "ResNet": Family("test_resnet", 0, "none", refused="no attention layers"),
}


@dataclass(frozen=True)
class Found:
    """What the census found of one family."""

    layers: int
    unplaced: int
    compared: int
    worst: float  # largest difference from the model's own probabilities
    hidden: float  # largest weight on a pair that the geometry calls invisible
    same: bool  # whether watching left the output as it was
    beside: int  # modules that attend, but not over patches


def build(family: Family) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a small random model of a family, and images for it."""
    torch.manual_seed(0)
    model = timm.create_model(family.model, pretrained=False, **family.arguments)
    images = torch.randn(2, 3, family.size, family.size)
    return settle(model, images), images


def settle(model: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """Let batch norms see the images once: without, many a stem gives zeros, and flat attention."""
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train().momentum = 1.0
    with torch.no_grad():
        model(images)
    return model.eval()


def census(family: Family) -> Found:
    """Return what is captured of a family."""
    model, images = build(family)
    with torch.inference_mode():
        bare = model(images)
        with capture(model, on_features=lambda _: None) as taps:
            watched = model(images)
    own = Softmaxes(model, [layer.name for layer in taps.layers])
    with unfused(model), torch.inference_mode(), own.watching(), _given(model, own, family.own):
        model(images)
    return beside_own(model, taps, own.found, same=torch.equal(bare, watched))


def beside_own(
    model: torch.nn.Module, taps: Any, own: dict[str, list[torch.Tensor]], *, same: bool
) -> Found:
    """Hold what was captured against the probabilities that the layers form themselves.

    Args:
        model: The model.
        taps: What was captured of it.
        own: Probabilities by the name of the layer.
        same: Whether watching left the output as it was.
    """
    worst, hidden, compared = 0.0, 0.0, 0
    for inputs in taps.attention:
        ours = reference.logits(inputs, slice(None)).softmax(-1)
        grid = inputs.layer.grid
        if grid is not None and grid.window:
            seen = torch.from_numpy(grid.visible()).repeat(inputs.images, 1, 1).unsqueeze(1)
            hidden = max(hidden, float((ours * ~seen).max()))
        layer = model.get_submodule(inputs.layer.name)
        for theirs in _whole(own[inputs.layer.name], ours):
            if theirs.numel() == ours.numel() and theirs.shape[-2:] == ours.shape[-2:]:
                gap = (ours - own_in_order(model, layer, theirs, ours.shape).double()).abs().max()
                worst, compared = max(worst, float(gap.nan_to_num(torch.inf))), compared + 1
    unplaced = sum(layer.grid is None for layer in taps.layers)
    return Found(len(taps.layers), unplaced, compared, worst, hidden, same, len(left_out(model)))


def _whole(found: list[torch.Tensor], ours: torch.Tensor) -> list[torch.Tensor]:
    """Return the softmaxes of a layer, heads that were computed in turn side by side."""
    in_turn = len(found) > 1 and {x.shape for x in found} == {ours[:, 0].shape}
    return [torch.stack(found, 1)] if in_turn else found


@contextmanager
def _given(model: torch.nn.Module, own: Softmaxes, part: str) -> Iterator[None]:
    """Keep what a part of each layer is given in place of its softmaxes, where it has that part."""
    layers = {name: model.get_submodule(name) for name in own.names}
    handles = [
        getattr(layer, part).register_forward_pre_hook(
            lambda _, inputs, name=name: own.found.__setitem__(name, [inputs[0]])
        )
        for name, layer in layers.items()
        if part and hasattr(layer, "gating_param")
    ]
    yield
    for handle in handles:
        handle.remove()


def page() -> str:
    """Return docs/coverage.md."""
    from framework_families import page as of_other_libraries

    rows = [_row(name, family) for name, family in FAMILIES.items()]
    return HEAD + "\n".join(rows) + "\n" + of_other_libraries()


def _row(name: str, family: Family) -> str:
    start = f"| {name} | `{family.model}` | {family.kind} "
    if not family.layers:
        return f"{start}| refused | - | - |"
    found = census(family)
    placed = found.layers - found.unplaced
    metrics = "all" if placed == found.layers else f"all; distance in {placed} layers"
    metrics += f"; {found.beside} other modules left out" if found.beside else ""
    off = f"1e{math.ceil(math.log10(found.worst))}" if found.worst else "0"
    return f"{start}| {found.layers} of {family.layers} | {off} | {metrics} |"


HEAD = """# Attention families

What is captured of a small random model of each family that timm implements, at 2 images and in
fp32. *Difference* is the bound, a power of ten, on the largest difference between the captured
probabilities and those that the model forms itself. Watching changes no output by a bit. Refused
families end with an error that names the module; nothing is measured of them.

| family | model | attention | layers | difference | metrics |
|---|---|---|---|---|---|
"""

if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE.name}\n")
