"""The folder of a training run that is made up: what it says and how it went is known."""

import io
import json
from dataclasses import replace

import numpy as np
from PIL import Image
from tracks import checkpoint

CONFIG = """objective = "simmim"

[model]
model = "vit_tiny_patch16_224"
img_size = 32

[loop]
epochs = 10
"""
STEPS, PER_EPOCH, BATCH = 400, 40, 64
PROBED = (0, 40, 120, 240, 400)


def manifest(step=STEPS, **changes):
    """Facts of the run after some updates."""
    return {
        "schema": 1,
        "kind": "training",
        "objective": "simmim",
        "objective_kind": "mim",
        "title": "SimMIM (Xie et al. 2022)",
        "name": "simmim vit_tiny",
        "recipe": "simmim-cifar",
        "command": "attnprobe pretrain simmim --recipe simmim-cifar --data images --out run",
        "model": {
            "architecture": "vit_tiny_patch16_224",
            "model_args": {"img_size": 32, "patch_size": 4},
            "parameters": 5_378_688,
            "classes": 0,
            "init": "",
        },
        "data": {
            "label": "images",
            "images": 2560,
            "classes": 10,
            "sha256": "ef" * 32,
            "hashed": "ids and sizes",
        },
        "versions": {"python": "3.11.9", "torch": "2.9.0"},
        "device": "cpu",
        "precision": "bf16",
        "processes": 1,
        "batch_size": BATCH,
        "steps": STEPS,
        "steps_per_epoch": PER_EPOCH,
        "epochs": 10,
        "step": step,
        "status": "finished" if step == STEPS else "interrupted",
        "weights": "as trained",
        "created": "2025-05-01T10:00:00+00:00",
        "seconds": 17.5 * step,
        "images_per_second": 231.4,
        "skipped": ["n01/broken.jpg"],
        "licence": "",
        **changes,
    }


def loss(step):
    """The loss that is logged after some updates."""
    rng = np.random.default_rng(step)
    return 0.2 + 0.8 * 0.5 ** (step / 60) + 0.02 * rng.normal()


def lines(step=STEPS, *, evals=True):
    """The lines of metrics.jsonl up to a step."""
    found = []
    for at in range(5, step + 1, 5):
        rate = 1e-3 * min(1, at / 40) * (0.5 + 0.5 * np.cos(np.pi * at / STEPS))
        row = {"kind": "train", "step": at, "epoch": at / PER_EPOCH, "loss": loss(at), "lr": rate}
        row |= {"grad_norm": 1 + 2 / at, "images_per_s": 230 - 40 * (at % 40 == 0)}
        found.append({**row, "seconds": 17.5 * at})
        if evals and at % 80 == 0:
            scores = {"knn_top1": 0.2 + 0.04 * at / 80, "linear_top1": 0.25 + 0.05 * at / 80}
            whole = {"kind": "eval", "step": at, "epoch": at / PER_EPOCH}
            found.append({**whole, **scores, "loss": loss(at) + 0.05, "seconds": 3.0})
    return found


def probe(step, **sizes):
    """Result of the probe after some updates."""
    plain = checkpoint(step / STEPS, name=f"simmim vit_tiny, step {step}", **sizes)
    told = {"source": f"step-{step:08d}", "step": step, "epoch": step / PER_EPOCH}
    return replace(plain, model={**plain.model, **told}, arrays={})


def picture(epoch, *, side=24, rows=3):
    """A grid of images: the original, masked, reconstructed and pasted."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    grid = []
    for _ in range(rows):
        a, b, c = rng.uniform(1, 6, 3)
        image = np.stack([np.sin(a * x + b * y), np.cos(b * x * y), np.sin(c * (x - y))], axis=-1)
        mask = np.kron(rng.random((4, 4)) < 0.6, np.ones((side // 4, side // 4)))[..., None]
        made = image + rng.normal(0, 1.5 / (1 + epoch), image.shape)
        panels = (image, image * (1 - mask), made, image * (1 - mask) + made * mask)
        grid.append(np.concatenate(panels, axis=1))
    pixels = np.clip(127.5 * (1 + np.concatenate(grid)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_run(folder, *, step=STEPS, probed=PROBED, evals=True, epochs=(1, 2, 5, 10), **changes):
    """Write a run as far as it came and return its folder; sizes are those of `tracks`."""
    sizes = changes.pop("sizes", {"layers": 4, "heads": 3})
    folder.mkdir(parents=True, exist_ok=True)
    facts = manifest(step, **changes)
    (folder / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    logged = "".join(json.dumps(row) + "\n" for row in lines(step, evals=evals))
    (folder / "metrics.jsonl").write_text(logged, encoding="utf-8")
    for at in probed:
        if at <= step:
            probe(at, **sizes).save(folder / "probe" / f"step-{at:08d}")
    if epochs:
        (folder / "pictures").mkdir()
    for epoch in epochs:
        (folder / "pictures" / f"epoch-{epoch:04d}.png").write_bytes(picture(epoch))
    return folder
