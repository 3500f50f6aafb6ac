"""Our pre-training against the official codes: same weights, images and masks, in one process.

    python benchmarks/official_parity.py --simmim DIR --mae DIR --mocov3 DIR --swin DIR

DIR are checkouts of microsoft/SimMIM, facebookresearch/mae, facebookresearch/moco-v3 and
microsoft/Swin-Transformer. Our weights go into the official modules through `attnprobe.exports`,
strictly. Losses and gradients are compared in float64 and float32, then which parameters decay,
how masks are drawn, and how weights are initialised. Ends with 1 if a loss differs by more than
1e-5, or a gradient by more than 1e-5 (float64; float32: 1e-3) of its largest value.
"""

import importlib
import importlib.util
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace as Space
from typing import Any
from unittest import mock

import click
import numpy as np
import timm
import torch
from timm.models.vision_transformer import Block
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from attnprobe import exports, objectives
from attnprobe.objectives import Batch, Clock, Framing, _masking

LOSS, GRADIENT = 1e-5, {torch.float64: 1e-5, torch.float32: 1e-3}
FLOOR = {torch.float64: 1e-6, torch.float32: 1.0}
PROGRESS = Clock(3, 10)
SHARED = {
    "use_abs_pos_emb": False, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True,
    "init_values": 0.1, "global_pool": "token",
}  # fmt: skip
STILL = {"drop_path_rate": 0.0}
Decays = Callable[[nn.Module], set[int]]
# fixed positions are written in float32, and 13 radians are only so exact there
POSITIONS = 5e-6


@dataclass(frozen=True)
class Case:
    """One backbone under one objective, on both sides.

    Attributes:
        name: What is printed.
        objective: Name of our objective.
        architecture: timm name of our backbone.
        model_args: Arguments of our backbone.
        size: Side of the images in pixels.
        patch: Side of a patch in pixels.
        official: Builds the official module.
        options: Options of our objective.
        batch: Images.
    """

    name: str
    objective: str
    architecture: str
    model_args: dict[str, Any]
    size: int
    patch: int
    official: Callable[[], nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 2

    @property
    def framing(self) -> Framing:
        """What our objective knows about the model."""
        side, patch = (self.size, self.size), (self.patch, self.patch)
        return Framing(side, patch, (0.5,) * 3, (0.5,) * 3)

    def ours(self) -> nn.Module:
        """Build our module."""
        found = objectives.load(self.objective)
        backbone = timm.create_model(self.architecture, num_classes=0, **self.model_args)
        return found.build(backbone, found.config(**self.options), self.framing)


def package(name: str, folder: Path) -> Callable[[str], Any]:
    """Return an importer for a folder of a checkout, without running its __init__."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module
    return lambda inner: importlib.import_module(f"{name}.{inner}")


def by_path(name: str, path: Path) -> Any:
    """Import one file of a checkout."""
    found = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def simmim_vit(folder: Path) -> nn.Module:
    """Build the official ViT-B/16 of SimMIM's pre-training configuration."""
    vit = Space(
        PATCH_SIZE=16, IN_CHANS=3, EMBED_DIM=768, DEPTH=12, NUM_HEADS=12, MLP_RATIO=4,
        QKV_BIAS=True, INIT_VALUES=0.1, USE_APE=False, USE_RPB=False, USE_SHARED_RPB=True,
        USE_MEAN_POOLING=False,
    )  # fmt: skip
    model = Space(TYPE="vit", VIT=vit, DROP_RATE=0.0, DROP_PATH_RATE=0.0)
    build = package("official_simmim", folder / "models")("simmim").build_simmim
    return build(Space(MODEL=model, DATA=Space(IMG_SIZE=224)))


def simmim_swin(folder: Path, version: str, window: int, norm_target: int = 0) -> nn.Module:
    """Build an official Swin-B or Swin V2-B at 192 pixels for SimMIM."""
    swin = Space(
        PATCH_SIZE=4, IN_CHANS=3, EMBED_DIM=128, DEPTHS=[2, 2, 18, 2], NUM_HEADS=[4, 8, 16, 32],
        WINDOW_SIZE=window, MLP_RATIO=4, QKV_BIAS=True, QK_SCALE=None, APE=False, PATCH_NORM=True,
    )  # fmt: skip
    target = Space(ENABLE=norm_target > 0, PATCH_SIZE=norm_target)
    model = Space(
        TYPE=version, SWIN=swin, SWINV2=swin, DROP_RATE=0.0, DROP_PATH_RATE=0.0,
        SIMMIM=Space(NORM_TARGET=target),
    )  # fmt: skip
    build = package(f"official_{version}", folder / "models")("simmim").build_simmim
    train = Space(USE_CHECKPOINT=False)
    return build(Space(MODEL=model, DATA=Space(IMG_SIZE=192), TRAIN=train))


def written_out(module: nn.Module) -> nn.Module:
    """Leave attention unfused, as it is in the versions of timm that the codes ask for."""
    for layer in module.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False
    return module


def mae(folder: Path) -> nn.Module:
    """Build the official MAE ViT-B/16."""

    def block(*arguments: Any, qk_scale: None, **named: Any) -> Block:
        del qk_scale
        return written_out(Block(*arguments, **named))

    setattr(np, "float", float)  # noqa: B010 - numpy has lost the name
    package("util", folder / "util")
    module = by_path("official_mae", folder / "models_mae.py")
    module.Block = block
    return module.mae_vit_base_patch16(norm_pix_loss=True)


def mocov3(folder: Path) -> nn.Module:
    """Build the official MoCo v3 ViT-B/16, inside what distributed training wraps it in."""
    sys.modules["timm.models.layers.helpers"] = timm.layers.helpers
    vits = by_path("official_vits", folder / "vits.py")
    vits.VisionTransformerMoCo.num_tokens = 1
    builder = by_path("official_builder", folder / "moco" / "builder.py")
    return written_out(
        builder.MoCo_ViT(partial(vits.vit_base, stop_grad_conv1=True), 256, 4096, 0.2)
    )


def draw(case: Case, dtype: torch.dtype) -> Batch:
    """Draw images and masks for a case."""
    shape = (case.batch, 3, case.size, case.size)
    grid = case.size // case.patch
    cells = _masking.cells(case.framing, 32, 0.6)
    batch = {
        "simmim": lambda: {"mask": torch.stack([_masking.draw(cells) for _ in range(shape[0])])},
        "mae": lambda: {"noise": torch.rand(case.batch, grid * grid)},
        "mocov3": lambda: {f"view{index}": coloured(shape) for index in (1, 2)},
    }[case.objective]()
    batch |= {} if case.objective == "mocov3" else {"image": torch.randn(shape)}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}


def coloured(shape: tuple[int, ...]) -> Tensor:
    """Draw noise around a colour an image: a batch norm over alike images enlarges rounding."""
    return torch.randn(shape) + 3 * torch.randn(shape[0], 3, 1, 1)


def official_loss(case: Case, module: Any, batch: Batch, momentum: float) -> Tensor:
    """Run the official forward pass on our images, masks and momentum."""
    if case.objective == "simmim":
        return module(batch["image"], batch["mask"].long())
    if case.objective == "mae":
        with mock.patch.object(torch, "rand", return_value=batch["noise"]):
            return module(batch["image"], mask_ratio=0.75)[0]
    with mock.patch.object(Tensor, "cuda", lambda self: self):
        return module(batch["view1"], batch["view2"], momentum)


def exported(case: Case, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors under our names the official ones, as `attnprobe export` does."""
    encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k[:8] == "encoder."}
    rest = {k: v for k, v in tensors.items() if k[:8] != "encoder."}
    card = {"architecture": case.architecture, "model_args": case.model_args}
    written = exports.load(case.objective).write(encoder, rest, card)
    named = written["state_dict" if case.objective == "mocov3" else "model"]
    return {key.removeprefix("module."): value for key, value in named.items()}


def shake(module: nn.Module) -> None:
    """Move every trained weight off its initial value: zeros and ones would hide errors."""
    for item in module.parameters():
        if item.requires_grad:
            item.data.add_(torch.randn_like(item), alpha=0.02)


def compare(case: Case, dtype: torch.dtype) -> bool:
    """Compare loss and gradients in one precision; print, and return whether they agree."""
    started = time.perf_counter()
    torch.manual_seed(0)
    ours = case.ours()
    shake(ours)
    if case.objective == "mocov3":
        ours.momentum_encoder.load_state_dict(ours.encoder.state_dict())
        ours.momentum_projector.load_state_dict(ours.projector.state_dict())
    theirs = case.official()
    theirs.load_state_dict(exported(case, ours.state_dict()), strict=True)
    ours, theirs, batch = ours.to(dtype).train(), theirs.to(dtype).train(), draw(case, dtype)
    momentum = ours.momentum(PROGRESS.progress) if case.objective == "mocov3" else 0.0
    expected = official_loss(case, theirs, batch, momentum)
    expected.backward()
    found = objectives.load(case.objective).step(ours, batch, PROGRESS)["loss"]
    found.backward()
    apart = float((found - expected).detach().abs())
    worst, name = gradients(case, ours, theirs)
    slow = states(case, ours, theirs)
    agrees = apart <= LOSS and worst <= GRADIENT[dtype] and slow <= LOSS
    print(
        f"{case.name:34s} {str(dtype)[6:]}  loss {float(expected.detach()):.6f}  "
        f"difference {apart:.1e}  gradients {worst:.1e} ({name})  state {slow:.1e}  "
        f"{'ok' if agrees else 'DIFFERS'}  {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return agrees


def gradients(case: Case, ours: nn.Module, theirs: nn.Module) -> tuple[float, str]:
    """Return the worst difference of a gradient over its largest value, and where it is.

    Over no less than FLOOR of the median parameter's largest value.
    """
    made = dict(ours.named_parameters())
    grads = {key: made[key].grad if key in made else None for key in ours.state_dict()}
    blank = {key: torch.zeros_like(value) for key, value in ours.state_dict().items()}
    filled = {key: blank[key] if grads[key] is None else grads[key] for key in blank}
    found = exported(case, filled)
    expected = {k: v.grad for k, v in theirs.named_parameters() if v.grad is not None}
    largest = {name: float(item.abs().max()) for name, item in expected.items()}
    # what a batch normalisation cancels has no gradient but rounding
    dtype = next(iter(expected.values())).dtype
    floor = FLOOR[dtype] * statistics.median(largest.values())
    worst = (0.0, "none")
    for name, item in expected.items():
        apart = float((found[name] - item).abs().max()) / max(largest[name], floor)
        worst = max(worst, (apart, name))
    return worst


def states(case: Case, ours: nn.Module, theirs: nn.Module) -> float:
    """Return the largest difference of weights and statistics after the pass (momentum, norms)."""
    expected = theirs.state_dict()
    found = exported(case, ours.state_dict())
    return max(float((found[key] - expected[key]).abs().max()) for key in expected)


def decay(case: Case, official_decays: Decays) -> None:
    """Print which parameters decay on one side only."""
    ours, theirs = case.ours(), case.official()
    state = ours.state_dict()
    official_name = {id(tensor): name for name, tensor in exported(case, state).items()}
    names = {key: official_name[id(state[key])] for key in state}
    objective = objectives.load(case.objective)
    free = set() if objective.decay_biases else ours.no_weight_decay()
    groups = param_groups_weight_decay(
        ours, 0.05, weight_decay_exclude_1d=not objective.decay_biases, no_weight_decay_list=free
    )
    decaying = {id(item) for group in groups if group["weight_decay"] for item in group["params"]}
    if objective.decay_biases:
        decaying = {id(item) for item in ours.parameters() if item.requires_grad}
    found = {names[key] for key, item in ours.named_parameters() if id(item) in decaying}
    ids = official_decays(theirs)
    expected = {key for key, item in theirs.named_parameters() if id(item) in ids}
    print(f"{case.name:34s} weight decay: {len(found & expected)} parameters on both sides")
    for told, only in (("the official code", expected - found), ("ours", found - expected)):
        if only:
            print(f"{'':34s}   in {told} alone: {len(only)}, such as {min(only)}")


def initial(case: Case) -> bool:
    """Compare mean sizes of large initial weights, and fixed positions."""
    torch.manual_seed(1)
    found, expected = exported(case, case.ours().state_dict()), case.official().state_dict()
    worst = (0.0, "none")
    for key, value in expected.items():
        if value.is_floating_point() and value.numel() > 50_000 and "attn_mask" not in key:
            sizes = [float(item.abs().mean()) for item in (found[key], value)]
            apart = abs(sizes[0] / max(sizes[1], 1e-30) - 1)
            worst = max(worst, (apart, key))
    places = [key for key in expected if key.endswith("pos_embed")]
    table = max((float((found[k] - expected[k]).abs().max()) for k in places), default=0.0)
    agrees = worst[0] < 0.02 and (case.objective == "simmim" or table <= POSITIONS)
    print(
        f"{case.name:34s} initial sizes within {worst[0]:.2%} ({worst[1]})"
        + (f", fixed positions within {table:.1e}" if places else "")
        + ("" if agrees else "  DIFFERS")
    )
    return agrees


def masks(simmim: Path) -> bool:
    """Compare masks under the same permutations."""
    official = by_path("official_masks", simmim / "data" / "data_simmim.py").MaskGenerator
    same = True
    for size, patch, cell, ratio in ((192, 4, 32, 0.6), (224, 16, 32, 0.6), (32, 4, 8, 0.35)):
        framing = Framing((size, size), (patch, patch), (0.5,) * 3, (0.5,) * 3)
        cells = _masking.cells(framing, cell, ratio)
        generator = official(size, cell, patch, ratio)
        order = torch.randperm(cells.rows * cells.cols)
        with mock.patch.object(np.random, "permutation", lambda _, order=order: order.numpy()):
            same &= bool((torch.from_numpy(generator()) == _masking.spread(order, cells)).all())
    print(f"masks under the same permutation: {'equal' if same else 'DIFFER'}")
    return same


def simmim_decays(folder: Path) -> Decays:
    """Return the grouping of an official optimizer.py."""
    group = by_path(f"official_{folder.name}", folder / "optimizer.py").get_pretrain_param_groups

    def decays(module: Any) -> set[int]:
        free = (module.no_weight_decay(), module.no_weight_decay_keywords())
        silent = (mock.Mock(),) if group.__code__.co_argcount == 4 else ()
        return {id(item) for item in group(module, *silent, *free)[0]["params"]}

    return decays


def mae_decays(module: nn.Module) -> set[int]:
    """Group as MAE does: everything that is neither a bias nor one-dimensional."""
    groups = param_groups_weight_decay(module, 0.05)
    return {id(item) for group in groups if group["weight_decay"] for item in group["params"]}


def all_decay(module: nn.Module) -> set[int]:
    """Group as MoCo v3 does: AdamW over all parameters."""
    return {id(item) for item in module.parameters() if item.requires_grad}


def cases(folders: dict[str, Path | None]) -> list[tuple[Case, Decays]]:
    """Return the comparisons that the given checkouts allow, with the official grouping."""
    vit, found = ("vit_base_patch16_224", {}, 224, 16), []
    if folder := folders["simmim"]:
        build, decays = partial(simmim_vit, folder), simmim_decays(folder)
        beit = ("beit_base_patch16_224", SHARED, 224, 16)
        found.append((Case("SimMIM ViT-B/16 at 224", "simmim", *beit, build), decays))
        build = partial(simmim_swin, folder, "swin", 6)
        swin = ("swin_base_patch4_window7_224", {**STILL, "window_size": 6, "img_size": 192})
        found.append((Case("SimMIM Swin-B at 192", "simmim", *swin, 192, 4, build), decays))
    if folder := folders["swin"]:
        decays, swin = simmim_decays(folder), ("swinv2_base_window12_192", STILL, 192, 4)
        for side, told in ((0, "plain targets"), (47, "normed targets")):
            build, name = partial(simmim_swin, folder, "swinv2", 12, side), f"Swin V2-B, {told}"
            options = {"norm_target": side}
            found.append((Case(f"SimMIM {name}", "simmim", *swin, build, options), decays))
    if folder := folders["mae"]:
        found.append((Case("MAE ViT-B/16 at 224", "mae", *vit, partial(mae, folder)), mae_decays))
    if folder := folders["mocov3"]:
        build = partial(mocov3, folder)
        found.append((Case("MoCo v3 ViT-B/16 at 224", "mocov3", *vit, build, batch=4), all_decay))
    return found


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--simmim", type=FOLDER, help="Checkout of microsoft/SimMIM.")
@click.option("--mae", type=FOLDER, help="Checkout of facebookresearch/mae.")
@click.option("--mocov3", type=FOLDER, help="Checkout of facebookresearch/moco-v3.")
@click.option("--swin", type=FOLDER, help="Checkout of microsoft/Swin-Transformer.")
@click.option("--only", default="", help="Only cases whose name contains this.")
def main(only: str, **folders: Path | None) -> None:
    """Compare our pre-training with the official codes."""
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, store=torch.distributed.HashStore()
    )
    chosen = [pair for pair in cases(folders) if only in pair[0].name]
    agree = [masks(folders["simmim"])] if folders["simmim"] else []
    for case, decays in chosen:
        agree += [compare(case, dtype) for dtype in (torch.float64, torch.float32)]
        agree.append(initial(case))
        decay(case, decays)
    torch.distributed.destroy_process_group()
    sys.exit(0 if agree and all(agree) else 1)


if __name__ == "__main__":
    main()
