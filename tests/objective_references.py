"""Plain float64 lines for what objectives compute, tiny backbones, and one run in two processes."""

import math
from dataclasses import replace

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from attnprobe import objectives
from attnprobe.objectives import Clock, Framing

FRAMING = Framing((32, 32), (4, 4), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PLAIN = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
WINDOWED = {
    "img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2),
    "num_heads": (2, 4), "drop_path_rate": 0.0,
}  # fmt: skip
SHARED = {
    "use_abs_pos_emb": False, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True,
    "init_values": 0.1, "global_pool": "token",
}  # fmt: skip
BACKBONES = {
    "vit": ("vit_tiny_patch16_224", PLAIN),
    "vit without class token": (
        "vit_base_patch16_224",
        {**PLAIN, "class_token": False, "global_pool": "avg"},
    ),
    "vit with registers": ("vit_small_patch14_reg4_dinov2", PLAIN),
    "deit distilled": ("deit_tiny_distilled_patch16_224", PLAIN),
    "beit, shared table": ("beit_base_patch16_224", {**PLAIN, **SHARED}),
    "beit": ("beit_base_patch16_224", PLAIN),
    "relative positions": ("vit_relpos_small_patch16_224", PLAIN),
    "eva": ("eva02_tiny_patch14_224", PLAIN),
    "swin": ("swin_tiny_patch4_window7_224", WINDOWED),
    "swin v2": ("swinv2_tiny_window8_256", WINDOWED),
}
OPTIONS = {
    "simmim": {"mask_patch": 8},
    "mae": {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 4},
    "mocov3": {"dim": 16, "mlp_dim": 32},
}
ALL = Clock(0, 10)


def backbone(family):
    name, arguments = BACKBONES[family]
    return timm.create_model(name, num_classes=0, **arguments)


def framing_of(family):
    patch = BACKBONES[family][1]["patch_size"]
    return replace(FRAMING, patch=(patch, patch))


def build(objective, family="vit", **options):
    torch.manual_seed(0)
    found = objectives.load(objective)
    config = found.config(**{**OPTIONS[objective], **options})
    return found.build(backbone(family), config, framing_of(family)).train()


def photo(seed=0):
    """A picture that is the same in every process, unlike Pillow's noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((50, 40))


def batch_of(objective, family="vit", count=4, dtype=torch.float32):
    torch.manual_seed(1)
    found = objectives.load(objective)
    views = found.views(found.config(**OPTIONS[objective]), framing_of(family))
    items = [views(photo(index)) for index in range(count)]
    stacked = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in stacked.items()}


def simmim_loss(images, made, mask, patch):
    total, count = 0.0, 0.0
    for image in range(len(images)):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                if mask[image, y // patch, x // patch]:
                    total += float((images[image, :, y, x] - made[image, :, y, x]).abs().sum())
                    count += 1
    return total / (count + 1e-5) / 3


def window_statistics(images, side, y, x):
    """Mean and unbiased variance around one pixel of [batch, channels, height, width]."""
    half = side // 2
    window = images[:, :, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
    return window.mean((2, 3)), window.flatten(2).var(2, unbiased=True)


def mae_loss(images, made, hidden, patch):
    total, count, cols = 0.0, 0, images.shape[3] // patch
    for image in range(len(images)):
        for index in range(hidden.shape[1]):
            if hidden[image, index]:
                y, x = index // cols * patch, index % cols * patch
                pixels = images[image, :, y : y + patch, x : x + patch].permute(1, 2, 0).reshape(-1)
                target = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
                total += float(((made[image, index] - target) ** 2).mean())
                count += 1
    return total / count


def position(width, row, col, *, column_first):
    """Sine-cosine position of one patch, channel by channel."""
    quarter = width // 4
    rates = [10000 ** (-i / quarter) for i in range(quarter)]
    first, second = (col, row) if column_first else (row, col)
    values = [f(first * r) for f in (math.sin, math.cos) for r in rates]
    return values + [f(second * r) for f in (math.sin, math.cos) for r in rates]


def info_nce(queries, keys, temperature):
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    total = 0.0
    for i in range(len(queries)):
        scores = torch.stack([queries[i] @ keys[j] / temperature for j in range(len(keys))])
        total = total + scores.logsumexp(0) - scores[i]
    return 2 * temperature * total / len(queries)


def forward_backward(objective, module, batch):
    loss = objectives.load(objective).step(module, batch, ALL)["loss"]
    loss.backward()
    return loss.detach()


def in_two_processes(rank, store, out):
    """Run every objective on one half of its batch and save what comes of it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    found = {}
    for objective in OPTIONS:
        module = build(objective).double()
        whole = batch_of(objective, count=8, dtype=torch.float64)
        half = {key: value[4 * rank : 4 * rank + 4] for key, value in whole.items()}
        wrapped = DistributedDataParallel(module, find_unused_parameters=False)
        found[objective] = (
            forward_backward(objective, wrapped, half),
            {name: item.grad for name, item in module.named_parameters()},
            module.state_dict(),
        )
    torch.save(found, f"{out}.{rank}")
    torch.distributed.destroy_process_group()
